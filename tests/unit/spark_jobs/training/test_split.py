"""Where the past ends: windows long enough to learn from, and every event on the right side of its cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from infra.contracts.errors import DataRefused
from spark_jobs.training.split import (
    HELD_OUT,
    HISTORY,
    TRAIN,
    GlobalSplit,
    PerUserSplit,
    choose,
    fit_window,
    label_ages,
    phases,
)

END = datetime(2024, 6, 1, tzinfo=UTC)


def test_a_window_counts_users_with_a_history_before_it_and_a_label_inside() -> None:
    users = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    ages = np.array([0.5, 1.5, 9.0, 0.5, 9.0, 0.2, 1.2, 9.0])
    fit = fit_window(users, ages, days=1)
    assert (fit.train, fit.held_out, fit.users) == (2, 2, 2), "0 and 3 teach, 0 and 1 judge, 2 has no history"


def test_the_shortest_window_with_enough_users_is_chosen() -> None:
    rng = np.random.default_rng(1)
    busy = choose(np.repeat(np.arange(3000), 60), rng.random(180_000) * 60, end=END)
    assert isinstance(busy, GlobalSplit) and busy.window == timedelta(days=1)
    assert busy.train_from == END - timedelta(days=2) and busy.held_out_from == END - timedelta(days=1)
    quiet = choose(np.repeat(np.arange(3000), 6), rng.random(18_000) * 60, end=END)
    assert isinstance(quiet, GlobalSplit) and quiet.window > busy.window


def test_users_who_come_once_and_never_again_are_split_each_by_themselves() -> None:
    users = np.repeat(np.arange(500), 20)
    ages = np.repeat(np.linspace(1, 3000, 500), 20) + np.random.default_rng(2).random(10_000) / 100
    chosen = choose(users, ages, end=END)
    assert isinstance(chosen, PerUserSplit) and "of 500 users" in chosen.because
    assert "weaker" not in chosen.describe() and "other users' later events" in chosen.describe()


def test_data_without_a_wanted_event_is_refused_with_the_mend() -> None:
    with pytest.raises(DataRefused, match="--map type"):
        choose(np.zeros(0, np.int32), np.zeros(0), end=END)


def _events(spark: SparkSession, rows: list[tuple[int, int, float, str]]) -> list[Row]:
    return [
        Row(user_index=u, item_index=i, event_time=END - timedelta(days=age), event_type=t) for u, i, age, t in rows
    ]


def test_a_global_split_cuts_everybody_at_the_same_moments(spark: SparkSession) -> None:
    cut = GlobalSplit(END - timedelta(days=2), END - timedelta(days=1), timedelta(days=1), "test")
    rows = [(0, 0, 2.5, "click"), (0, 1, 2.0, "click"), (1, 2, 1.5, "click"), (1, 3, 1.0, "view"), (2, 4, 0.1, "click")]
    marked = phases(spark.createDataFrame(_events(spark, rows)), cut, wants=F.lit(True))
    found = {row.item_index: row.phase for row in marked.collect()}
    assert found == {0: HISTORY, 1: TRAIN, 2: TRAIN, 3: HELD_OUT, 4: HELD_OUT}, "an event at a cut is after it"


def test_a_split_per_user_holds_out_each_users_latest_and_keeps_one_moment_together(spark: SparkSession) -> None:
    rows = [(0, item, 10.0 - item, "click") for item in range(10)]
    rows += [(1, 20, 9.0, "click"), (1, 21, 5.0, "click")]  # too few to split
    rows += [(2, 30, 9.0, "click"), (2, 31, 5.0, "click"), (2, 32, 5.0, "click"), (2, 33, 4.0, "view")]
    cut = PerUserSplit(0.15, "test")
    marked = phases(spark.createDataFrame(_events(spark, rows)), cut, wants=F.col("event_type") == "click")
    found = {row.item_index: row.phase for row in marked.collect()}
    assert [found[item] for item in range(10)] == [HISTORY] * 8 + [TRAIN, HELD_OUT]
    assert found[20] == found[21] == HISTORY
    assert found[30] == HISTORY and found[31] == found[32] == HELD_OUT and found[33] == HELD_OUT


def test_ages_are_of_wanted_events_of_a_bounded_number_of_users(spark: SparkSession) -> None:
    rows = [(user, 0, 3.0, "click") for user in range(2000)] + [(5, 1, 1.0, "view")]
    events = spark.createDataFrame(_events(spark, rows))
    users, ages, share = label_ages(
        events, wants=F.col("event_type") == "click", end=END, n_users=2000, max_users=500, seed=1
    )
    assert share == 0.25 and 350 < len(set(users.tolist())) < 650
    np.testing.assert_allclose(ages, 3.0)
