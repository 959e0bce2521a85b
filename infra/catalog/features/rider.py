"""rider: what a rider has been asking for."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

RIDER_FEATURES = (
    FeatureSpec(
        name="cancellations_last_hour",
        entity="rider",
        aggregation=Aggregation.COUNT,
        events=frozenset({"rider_cancelled"}),
        window=timedelta(hours=1),
        unit="cancellations",
    ),
    FeatureSpec(
        name="requests_last_hour",
        entity="rider",
        aggregation=Aggregation.COUNT,
        events=frozenset({"ride_request"}),
        window=timedelta(hours=1),
        unit="requests",
    ),
)
