"""card: how fast a card is being used."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

CARD_FEATURES = (
    FeatureSpec(
        name="transactions_last_10_minutes",
        entity="card",
        aggregation=Aggregation.COUNT,
        events=frozenset({"transaction"}),
        window=timedelta(minutes=10),
        unit="transactions",
    ),
    FeatureSpec(
        name="transactions_last_hour",
        entity="card",
        aggregation=Aggregation.COUNT,
        events=frozenset({"transaction"}),
        window=timedelta(hours=1),
        unit="transactions",
    ),
    FeatureSpec(
        name="spend_last_hour_minor",
        entity="card",
        aggregation=Aggregation.SUM,
        events=frozenset({"transaction"}),
        window=timedelta(hours=1),
        of="amount_minor",
        unit="minor units of the card's currency",
        valid=(0, 10**14),
    ),
    FeatureSpec(
        name="spend_last_day_minor",
        entity="card",
        aggregation=Aggregation.SUM,
        events=frozenset({"transaction"}),
        window=timedelta(days=1),
        of="amount_minor",
        bucket=timedelta(minutes=10),
        unit="minor units of the card's currency",
        valid=(0, 10**14),
    ),
    FeatureSpec(
        name="declined_last_hour",
        entity="card",
        aggregation=Aggregation.COUNT,
        events=frozenset({"declined"}),
        window=timedelta(hours=1),
        unit="declined transactions",
    ),
    FeatureSpec(
        name="merchants_last_hour",
        entity="card",
        aggregation=Aggregation.DISTINCT,
        events=frozenset({"transaction", "declined"}),
        window=timedelta(hours=1),
        of="merchant_id",
        unit="merchants",
    ),
    FeatureSpec(
        name="devices_last_day",
        entity="card",
        aggregation=Aggregation.DISTINCT,
        events=frozenset({"transaction", "declined"}),
        window=timedelta(days=1),
        of="device_id",
        unit="devices",
    ),
)
