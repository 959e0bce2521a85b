"""The gate refuses item vectors whose users' side is not numbers, and takes a snapshot that was sealed without it."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.snapshots import State
from infra.snapshots.tables import ITEM_VECTORS, USER_SCALE, USER_WEIGHT, read_item_vectors
from tests.unit.validation.workbench import Workbench
from validation.check import Status


def weights(*first: float) -> Callable[[pa.Table], pa.Table]:
    """Those instead of the first ones."""

    def change(table: pa.Table) -> pa.Table:
        values = pa.array([*first, *table[USER_WEIGHT].to_pylist()[len(first) :]], pa.float32())
        return table.set_column(table.column_names.index(USER_WEIGHT), USER_WEIGHT, values)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (weights(float("nan"), -1.0), "2 of 300 numbers of user_weight are not 0 or more"),
        (
            lambda table: table.replace_schema_metadata({USER_SCALE: "[Infinity, 1, 1, 1, 1, 1, 1, 1]"}),
            "1 of 8 numbers",
        ),
        (lambda table: table.drop_columns([USER_WEIGHT]), "one of user_weight and user_scale, and not the other"),
        (lambda table: table.replace_schema_metadata(None), "one of user_weight and user_scale, and not the other"),
    ],
    ids=["weights", "scale", "no weights", "no scale"],
)
def test_it_is_found_by_integrity_and_by_whoever_loads_it(
    bench: Workbench, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    bench.edit_table(ITEM_VECTORS, change)
    findings = bench.judge(live="v1").ruling.judgement.findings
    (found,) = (finding for finding in findings if finding.status is Status.FAILED)
    assert found.check == "integrity" and says in "\n".join(found.examples)
    assert bench.version.state() is State.REJECTED
    with pytest.raises(SnapshotCorrupt, match=says):
        read_item_vectors(bench.version.storage, list(bench.manifest.parts[ITEM_VECTORS].files))


def test_a_snapshot_without_it_passes(bench: Workbench) -> None:
    bench.edit_table(ITEM_VECTORS, lambda table: table.drop_columns([USER_WEIGHT]).replace_schema_metadata(None))
    assert bench.judge(live="v1").state is State.VALIDATED
    found = read_item_vectors(bench.version.storage, list(bench.manifest.parts[ITEM_VECTORS].files))
    assert found.projection is None and found.vectors.shape == (300, 8)


def test_a_scale_of_another_width_is_refused_when_it_is_loaded(bench: Workbench) -> None:
    bench.edit_table(ITEM_VECTORS, lambda table: table.replace_schema_metadata({USER_SCALE: "[1, 2]"}))
    with pytest.raises(SnapshotCorrupt, match="user_scale has 2 numbers for vectors of 8"):
        read_item_vectors(bench.version.storage, list(bench.manifest.parts[ITEM_VECTORS].files))
