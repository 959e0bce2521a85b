"""What users and items had been up to: equal to a count by hand, and blind to everything after `as_of`."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.catalog.applications.ranking import RANKING
from infra.catalog.features.ranking import ITEM_FEATURES, USER_FEATURES
from infra.contracts.candidates import MAX_HISTORY
from spark_jobs.embeddings.activity import SMOOTHING_EVENTS, activity
from tests.fixtures.tiny_dataset import START

NAN = math.nan
Row = tuple[int, int, float, str, float]
"""user, item, day, type, value"""

EVENTS: list[Row] = [
    (0, 1, 0.0, "click", NAN),
    (0, 2, 1.0, "purchase", NAN),
    (0, 1, 9.5, "click", NAN),
    (0, 3, 9.75, "view", NAN),
    (1, 1, 5.0, "rating", 4.0),
    (1, 2, 9.0, "rating", 2.0),
    (2, 0, 8.0, "view", NAN),
]
AGES = [30.0, 40.0, NAN, 25.0]
FIRST_SEEN = [0.0, 0.0, 1.0, 9.75, 2.0]


def _frames(spark: SparkSession, events: list[Row]) -> tuple[DataFrame, DataFrame, DataFrame]:
    day = timedelta(days=1)
    event_rows = [(u, i, START + at * day, kind, value) for u, i, at, kind, value in events]
    return (
        spark.createDataFrame(
            event_rows, "user_index int, item_index int, event_time timestamp, event_type string, value float"
        ),
        spark.createDataFrame(
            [(item, START + at * day) for item, at in enumerate(FIRST_SEEN)], "item_index int, first_seen timestamp"
        ),
        spark.createDataFrame(
            [(user, f"u{user}", age) for user, age in enumerate(AGES)],
            "user_index int, user_id string, age_years float",
        ),
    )


def _compute(
    spark: SparkSession, events: list[Row], *, as_of: datetime
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    found = activity(*_frames(spark, events), as_of=as_of, spec=RANKING)
    items = found.items.toArrow().sort_by("item_index")
    users = found.users().toArrow().sort_by("user_index")
    for few in ([], [2, 0]):
        only = spark.createDataFrame([(user,) for user in few], "user_index int")
        mine = found.users(only).toArrow().sort_by("user_index").to_pylist()
        assert str(mine) == str(
            [row for row in users.to_pylist() if row["user_index"] in few]
        )  # NaN equals NaN as text
    assert items.column_names == ["item_index", *ITEM_FEATURES]
    assert users.column_names == ["user_index", "user_id", *USER_FEATURES, "history", "n_events"]
    return items.to_pylist(), users.to_pylist()


def test_every_item_and_user_has_its_features_as_counted_by_hand(spark: SparkSession) -> None:
    as_of = START + timedelta(days=10)
    items, users = _compute(spark, EVENTS, as_of=as_of)
    dear, recent = 1 / 7, 5 / 7
    wanted_item_1 = {
        "item_popularity_log": math.log1p(3),
        "item_trend_log": math.log1p(2),
        "item_trend_ratio": (2 + recent * SMOOTHING_EVENTS) / (3 + SMOOTHING_EVENTS),
        "item_age_days_log": math.log1p(10),
        "item_purchase_share": dear * SMOOTHING_EVENTS / (3 + SMOOTHING_EVENTS),
        "item_mean_value": 4.0,
        "item_mean_user_age": (30 + 30 + 40) / 3,
    }
    assert items[1] == pytest.approx({"item_index": 1, **wanted_item_1}, rel=1e-6)
    assert math.isnan(items[0]["item_mean_user_age"]) and math.isnan(items[4]["item_mean_value"])  # type: ignore[arg-type]
    assert items[4]["item_popularity_log"] == 0
    assert users[0]["history"] == [1, 2], "distinct, newest first, without what was only viewed"
    assert users[0]["user_purchase_share"] == pytest.approx((1 + dear * 10) / (4 + 10))
    assert users[0]["user_days_since_last_log"] == pytest.approx(math.log1p(0.25), rel=1e-6)
    assert [user["n_events"] for user in users] == [4, 2, 1, 0]
    assert users[3]["history"] == [] and math.isnan(users[3]["user_days_since_last_log"])  # type: ignore[arg-type]
    assert users[2]["history"] == []


def test_nothing_after_as_of_changes_a_feature(spark: SparkSession) -> None:
    as_of = START + timedelta(days=6)
    past = [row for row in EVENTS if row[2] <= 6]
    with_future = _compute(spark, EVENTS, as_of=as_of)
    without = _compute(spark, past, as_of=as_of)
    np.testing.assert_equal(with_future, without)


def test_a_history_is_cut_at_its_longest(spark: SparkSession) -> None:
    events = [(0, item % 5, 0.1 * item, "click", NAN) for item in range(50)]
    _, users = _compute(spark, events, as_of=START + timedelta(days=10))
    assert users[0]["history"] == [4, 3, 2, 1, 0]
    many = [(0, item, 0.1 * item, "click", NAN) for item in range(MAX_HISTORY + 9)]
    _, users = _compute(spark, many, as_of=START + timedelta(days=10))
    assert users[0]["history"] == list(range(MAX_HISTORY + 8, 8, -1))


def _naive(events: list[Row], *, as_of_day: float) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Item and user features by loops over the events."""
    past = [row for row in events if row[2] <= as_of_day]
    recent = [row for row in past if row[2] > as_of_day - RANKING.trend_window / timedelta(days=1)]
    mean_dear = sum(kind == "purchase" for _, _, _, kind, _ in past) / max(1, len(past))
    mean_recent = len(recent) / max(1, len(past))
    items: list[dict[str, object]] = []
    for item, born in enumerate(FIRST_SEEN):
        mine = [row for row in past if row[1] == item]
        values = [row[4] for row in mine if not math.isnan(row[4])]
        ages = [AGES[row[0]] for row in mine if not math.isnan(AGES[row[0]])]
        n_recent, n_dear = sum(row[1] == item for row in recent), sum(row[3] == "purchase" for row in mine)
        numbers = (
            math.log1p(len(mine)),
            math.log1p(n_recent),
            (n_recent + mean_recent * SMOOTHING_EVENTS) / (len(mine) + SMOOTHING_EVENTS),
            math.log1p(max(0.0, as_of_day - born)),
            (n_dear + mean_dear * SMOOTHING_EVENTS) / (len(mine) + SMOOTHING_EVENTS),
            sum(values) / len(values) if values else NAN,
            sum(ages) / len(ages) if ages else NAN,
        )
        items.append({"item_index": item, **dict(zip(ITEM_FEATURES, numbers, strict=True))})
    users: list[dict[str, object]] = []
    for user, age in enumerate(AGES):
        mine = [row for row in past if row[0] == user]
        n_dear = sum(row[3] == "purchase" for row in mine)
        last: dict[int, float] = {}
        for _, item, day, kind, _ in mine:
            if RANKING.gain(kind) > 0:
                last[item] = max(day, last.get(item, -math.inf))
        history = sorted(last, key=lambda item: (-last[item], item))[:MAX_HISTORY]
        numbers_of_user = (
            math.log1p(len(mine)),
            math.log1p(sum(row[0] == user for row in recent)),
            math.log1p(as_of_day - max(row[2] for row in mine)) if mine else NAN,
            (n_dear + mean_dear * SMOOTHING_EVENTS) / (len(mine) + SMOOTHING_EVENTS),
            age,
        )
        named = dict(zip(USER_FEATURES, numbers_of_user, strict=True))
        users.append({"user_index": user, "user_id": f"u{user}", **named, "history": history, "n_events": len(mine)})
    return items, users


def _close(seen: list[dict[str, object]], wanted: list[dict[str, object]]) -> None:
    for one, other in zip(seen, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6, nan_ok=True)


def test_features_of_generated_events_equal_those_of_loops_over_them(spark: SparkSession) -> None:
    rng = np.random.default_rng(8)
    kinds = ["view", "click", "rating", "purchase", "a type of its own"]
    events: list[Row] = [
        (
            int(rng.integers(3)),
            int(rng.integers(4)),
            float(rng.integers(0, 24 * 30)) / 24,  # whole hours: many at the same moment, some exactly at as_of
            kinds[int(rng.integers(5))],
            float(rng.integers(1, 6)) if rng.random() < 0.4 else NAN,
        )
        for _ in range(400)
    ]
    items, users = _compute(spark, events, as_of=START + timedelta(days=20))
    wanted_items, wanted_users = _naive(events, as_of_day=20.0)
    _close(items, wanted_items)
    for name in ("user_id", "history"):
        assert [row.pop(name) for row in users] == [row.pop(name) for row in wanted_users]
    _close(users, wanted_users)
