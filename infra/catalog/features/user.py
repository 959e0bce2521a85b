"""user: what a user did lately."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

_HOUR = timedelta(hours=1)
_CONSUMING = frozenset({"click", "rating", "purchase"})

USER_FEATURES = (
    FeatureSpec(
        name="clicks_last_hour",
        entity="user",
        aggregation=Aggregation.COUNT,
        events=frozenset({"click"}),
        window=_HOUR,
        unit="clicks",
        valid=(0, 10_000),
    ),
    FeatureSpec(
        name="purchases_last_hour",
        entity="user",
        aggregation=Aggregation.COUNT,
        events=frozenset({"purchase"}),
        window=_HOUR,
        unit="purchases",
        valid=(0, 10_000),
    ),
    FeatureSpec(
        name="clicks_in_session",
        entity="user",
        aggregation=Aggregation.SESSION,
        events=frozenset({"click"}),
        window=timedelta(hours=4),
        gap=timedelta(minutes=30),
        unit="clicks",
        valid=(0, 10_000),
    ),
    FeatureSpec(
        name="recent_items",
        entity="user",
        aggregation=Aggregation.LAST,
        events=_CONSUMING,
        of="item_id",
        k=500,  # what was taken since the batch is not shown again: more than anybody takes between two
        window=timedelta(days=7),
        unit="item ids",
    ),
    FeatureSpec(
        name="recent_searches",
        entity="user",
        aggregation=Aggregation.LAST,
        events=frozenset({"search"}),
        of="query",
        k=10,
        window=timedelta(days=1),
        unit="queries",
    ),
)
