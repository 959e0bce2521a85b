"""cell: supply and demand of a cell of the map."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

CELL_FEATURES = (
    FeatureSpec(
        name="demand_last_10_minutes",
        entity="cell",
        aggregation=Aggregation.COUNT,
        events=frozenset({"ride_request"}),
        window=timedelta(minutes=10),
        unit="requests",
    ),
    FeatureSpec(
        name="supply_last_10_minutes",
        entity="cell",
        aggregation=Aggregation.DISTINCT,
        events=frozenset({"driver_available"}),
        window=timedelta(minutes=10),
        of="driver_id",
        unit="drivers",
    ),
    FeatureSpec(
        name="cancellations_last_10_minutes",
        entity="cell",
        aggregation=Aggregation.COUNT,
        events=frozenset({"driver_cancelled", "rider_cancelled"}),
        window=timedelta(minutes=10),
        unit="cancellations",
    ),
)
