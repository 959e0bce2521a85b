"""The popular lists count people, not events, and prefer what people take now."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pyspark.sql import SparkSession

from infra.catalog.applications.ranking import RANKING
from infra.snapshots.tables import POPULAR_SCHEMA
from spark_jobs.candidates.popular import popular
from tests.fixtures.tiny_dataset import START


def test_popular_counts_distinct_users_by_age_and_trending_those_of_the_window(spark: SparkSession) -> None:
    rows = [(0, 5, 0.0)] * 50 + [(1, 5, 0.0), (2, 5, 0.0), (3, 4, 27.5), (4, 4, 27.0), (5, 2, 20.5), (0, 1, 40.0)]
    events = spark.createDataFrame(
        [(user, item, START + timedelta(days=day), "click") for user, item, day in rows]
        + [(user, 0, START + timedelta(days=27), "view") for user in range(9)],
        "user_index int, item_index int, event_time timestamp, event_type string",
    )
    table = popular(events, n_items=7, length=6, as_of=START + timedelta(days=28), spec=RANKING)
    assert table.schema == POPULAR_SCHEMA
    rows_out = table.to_pylist()
    lists = {name: [row["item_index"] for row in rows_out if row["list"] == name] for name in ("popular", "trending")}
    assert lists["popular"] == [4, 5, 2, 0, 1, 3], "items that nobody took fill the list, lower index first"
    assert lists["trending"] == [4], "20.5 days is outside the last 7 of 28, views and the future do not count"
    assert rows_out[1]["score"] == pytest.approx(3 * 0.25), "three people, two half-lives ago, however often"
    assert [row["rank"] for row in rows_out[:6]] == list(range(6))
