"""merchant: how fast a merchant is being paid, and by how many cards."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

MERCHANT_FEATURES = (
    FeatureSpec(
        name="transactions_last_10_minutes",
        entity="merchant",
        aggregation=Aggregation.COUNT,
        events=frozenset({"transaction"}),
        window=timedelta(minutes=10),
        unit="transactions",
    ),
    FeatureSpec(
        name="transactions_last_hour",
        entity="merchant",
        aggregation=Aggregation.COUNT,
        events=frozenset({"transaction"}),
        window=timedelta(hours=1),
        unit="transactions",
    ),
    FeatureSpec(
        name="turnover_last_hour_minor",
        entity="merchant",
        aggregation=Aggregation.SUM,
        events=frozenset({"transaction"}),
        window=timedelta(hours=1),
        of="amount_minor",
        unit="minor units",
        valid=(0, 10**14),
    ),
    FeatureSpec(
        name="declined_last_hour",
        entity="merchant",
        aggregation=Aggregation.COUNT,
        events=frozenset({"declined"}),
        window=timedelta(hours=1),
        unit="declined transactions",
    ),
    FeatureSpec(
        name="chargebacks_last_day",
        entity="merchant",
        aggregation=Aggregation.COUNT,
        events=frozenset({"chargeback"}),
        window=timedelta(days=1),
        bucket=timedelta(minutes=10),
        unit="chargebacks",
    ),
    FeatureSpec(
        name="cards_last_hour",
        entity="merchant",
        aggregation=Aggregation.DISTINCT,
        events=frozenset({"transaction", "declined"}),
        window=timedelta(hours=1),
        of="card_id",
        unit="cards",
    ),
)
