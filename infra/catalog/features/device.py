"""device: how many cards a device has tried."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

DEVICE_FEATURES = (
    FeatureSpec(
        name="transactions_last_hour",
        entity="device",
        aggregation=Aggregation.COUNT,
        events=frozenset({"transaction"}),
        window=timedelta(hours=1),
        unit="transactions",
    ),
    FeatureSpec(
        name="declined_last_hour",
        entity="device",
        aggregation=Aggregation.COUNT,
        events=frozenset({"declined"}),
        window=timedelta(hours=1),
        unit="declined transactions",
    ),
    FeatureSpec(
        name="cards_last_day",
        entity="device",
        aggregation=Aggregation.DISTINCT,
        events=frozenset({"transaction", "declined"}),
        window=timedelta(days=1),
        of="card_id",
        unit="cards",
    ),
)
