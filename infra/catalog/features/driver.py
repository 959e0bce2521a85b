"""driver: how a driver has been working."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

DRIVER_FEATURES = (
    FeatureSpec(
        name="cancellations_last_hour",
        entity="driver",
        aggregation=Aggregation.COUNT,
        events=frozenset({"driver_cancelled"}),
        window=timedelta(hours=1),
        unit="cancellations",
    ),
    FeatureSpec(
        name="rides_last_hour",
        entity="driver",
        aggregation=Aggregation.COUNT,
        events=frozenset({"ride_accepted"}),
        window=timedelta(hours=1),
        unit="rides",
    ),
)
