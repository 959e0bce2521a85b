"""item: which items many users take at this moment, which are new, what is said of a new one, and what changed since the batch."""

from __future__ import annotations

from datetime import timedelta

from infra.contracts.features import Aggregation, FeatureSpec

_ADDED = frozenset({"item_added"})
_CHANGED = frozenset({"item_changed"})
_A_WEEK = timedelta(days=7)  # the longest that an event may have happened ago: by then a snapshot knows the item

ITEM_FEATURES = (
    FeatureSpec(
        name="trending_clicks",
        entity="item",
        aggregation=Aggregation.TOP,
        events=frozenset({"click", "rating", "purchase"}),
        window=timedelta(hours=1),
        bucket=timedelta(minutes=5),
        k=200,
        unit="clicks, ratings and purchases in the last hour",
    ),
    FeatureSpec(
        name="trending_purchases",
        entity="item",
        aggregation=Aggregation.TOP,
        events=frozenset({"purchase"}),
        window=timedelta(hours=1),
        bucket=timedelta(minutes=5),
        k=200,
        unit="purchases in the last hour",
    ),
    FeatureSpec(
        name="newest_items",
        entity="item",
        aggregation=Aggregation.NEWEST,
        events=_ADDED,
        window=_A_WEEK,
        k=50,
        unit="item ids",
    ),
    *(
        FeatureSpec(
            name=name,
            entity="item",
            aggregation=Aggregation.LAST,
            events=_ADDED,
            of=name,
            k=1,
            window=_A_WEEK,
            unit="text",
        )
        for name in ("title", "creator", "genres")
    ),
    FeatureSpec(
        name="unavailable",
        entity="item",
        aggregation=Aggregation.STANDING,
        events=_CHANGED,
        of="available",
        usual="1",
        window=_A_WEEK,
        unit="0",
    ),
    *(
        FeatureSpec(
            name=f"changed_{name}",
            entity="item",
            aggregation=Aggregation.STANDING,
            events=_CHANGED,
            of=name,
            window=_A_WEEK,
            unit="text",
        )
        for name in ("title", "creator", "genres")
    ),
)
