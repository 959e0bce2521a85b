"""Every nearline feature is declared of events that there are: their type, whom they concern, and the field that it reads."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from infra.catalog.events import SCHEMAS
from infra.catalog.events.spec import EventSchema
from infra.catalog.features.nearline import plan_of
from infra.contracts.features import Aggregation, FeatureSpec
from infra.contracts.ids import ApplicationName

CHECKOUT = Path(__file__).resolve().parents[2]
SHIPPED = [(name, spec) for name in SCHEMAS for spec in plan_of(name).specs]
LARGEST = 10**12
"""Of a field that is summed: nine million of them in one bucket of one entity still fit into the 64 bits of Redis."""


def faults_of(spec: FeatureSpec, schema: EventSchema) -> list[str]:
    """What that feature wants and the application's events do not have."""
    faults = [f"events of type {name}" for name in spec.events - schema.types.keys()]
    for name in sorted(spec.events & schema.types.keys()):
        event_type = schema.types[name]
        kinds = (*event_type.entities, *event_type.optional)
        if spec.entity not in kinds:
            faults.append(f"a {spec.entity} that a {name} concerns")
        if spec.of and spec.of not in event_type.fields and spec.of not in {f"{kind}_id" for kind in kinds}:
            faults.append(f"a field {spec.of} of a {name}")
        if spec.aggregation is Aggregation.SUM:
            field = event_type.fields.get(spec.of)
            if field is None or field.dtype != "int" or max(abs(field.low), abs(field.high)) > LARGEST:
                faults.append(f"a whole number within {LARGEST:.0e} called {spec.of} in a {name}")
    if spec.window > schema.horizon:
        faults.append(f"events of the last {spec.window}")
    return faults


@pytest.mark.parametrize(("name", "spec"), SHIPPED, ids=lambda part: getattr(part, "name", part))
def test_a_feature_counts_events_that_its_application_has(name: ApplicationName, spec: FeatureSpec) -> None:
    assert faults_of(spec, SCHEMAS[name]) == []


@pytest.mark.parametrize("file", sorted((CHECKOUT / "infra/catalog/features").glob("*.py")), ids=lambda file: file.stem)
def test_a_declared_feature_belongs_to_an_application(file: Path) -> None:
    module = import_module(f"infra.catalog.features.{file.stem}")
    declared = [part for value in vars(module).values() if isinstance(value, tuple) for part in value]
    shipped = [spec for _, spec in SHIPPED]
    assert [spec.name for spec in declared if isinstance(spec, FeatureSpec) and spec not in shipped] == []


def test_a_feature_of_what_is_not_there_is_found() -> None:
    spec = next(spec for _, spec in SHIPPED if spec.name == "spend_last_hour_minor")
    assert len(faults_of(spec, SCHEMAS[ApplicationName("ranking")])) == 1
    assert len(faults_of(spec, SCHEMAS[ApplicationName("fraud")])) == 0
