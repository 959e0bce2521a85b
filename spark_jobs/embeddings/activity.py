"""activity: what users and items had been up to by a moment; the batch side of the ranker's features."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import ITEM_FEATURES, USER_FEATURES
from infra.contracts.candidates import MAX_HISTORY
from spark_jobs.embeddings.interactions import gain, up_to

SMOOTHING_EVENTS = 10.0
"""A share counts this many imagined events at the mean of all: 1 purchase in 1 event is not a share of 1."""

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Activity:
    """Features of items and users from the events up to a moment alone. Both sides are lazy; NaN where unknown, never null.

    items: item_index and ITEM_FEATURES, float32, a row for every item of the catalogue, also those without an event so far.
    """

    items: DataFrame
    _marked: DataFrame
    _users: DataFrame
    _as_of: datetime
    _mean_dear: float

    def active(self) -> DataFrame:
        """user_index of users with an event by then; repeated."""
        return self._marked.select("user_index")

    def users(self, only: DataFrame | None = None) -> DataFrame:
        """user_index, user_id, USER_FEATURES (float32), history (array<int>, the last MAX_HISTORY distinct items consumed, newest
        first), n_events (int): a row for every user, or for those of `only` (user_index), whose events alone are then read.
        """
        marked, users = self._marked, self._users
        if only is not None:
            few = F.broadcast(only.select("user_index"))
            marked, users = (frame.join(few, "user_index", "left_semi") for frame in (marked, users))
        return _user_side(marked, users, as_of=self._as_of, mean_dear=self._mean_dear)


def activity(
    events: DataFrame, items: DataFrame, users: DataFrame, *, as_of: datetime, spec: ApplicationSpec
) -> Activity:
    """What everybody had been up to by `as_of`; training asks for an earlier moment."""
    window_start = as_of - spec.trend_window
    dearest = max(spec.event_gain.values(), default=spec.default_gain)
    marked = up_to(events, as_of=as_of).select(
        "user_index",
        "item_index",
        "event_time",
        F.nanvl(F.col("value").cast("double"), F.lit(None)).alias("value"),
        (F.col("event_time") > F.lit(window_start)).cast("int").alias("recent"),
        (gain(spec) >= dearest).cast("int").alias("dear"),
        (gain(spec) > 0).alias("consumed"),
    )
    totals = marked.agg(F.avg("dear").alias("dear"), F.avg("recent").alias("recent")).first()
    mean_dear = float(totals["dear"] or 0.0) if totals else 0.0
    mean_recent = float(totals["recent"] or 0.0) if totals else 0.0
    item_side = _item_side(marked, items, users, as_of=as_of, mean_dear=mean_dear, mean_recent=mean_recent)
    return Activity(item_side, marked, users, as_of, mean_dear)


def _smoothed(part: str, whole: str, mean: float) -> Column:
    return (F.col(part) + mean * SMOOTHING_EVENTS) / (F.col(whole) + SMOOTHING_EVENTS)


def _float(column: Column) -> Column:
    """float32, NaN for null."""
    return F.coalesce(column.cast("float"), F.lit(float("nan")).cast("float"))


def _days_before(as_of: datetime, column: str) -> Column:
    seconds = (F.unix_micros(F.lit(as_of)) - F.unix_micros(F.col(column))) / 1e6
    return F.when(seconds < 0, 0.0).otherwise(seconds / _DAY_S)  # not greatest(): that skips null


def _item_side(
    marked: DataFrame, items: DataFrame, users: DataFrame, *, as_of: datetime, mean_dear: float, mean_recent: float
) -> DataFrame:
    ages = users.select("user_index", F.nanvl(F.col("age_years").cast("double"), F.lit(None)).alias("age"))
    counted = (
        marked.join(ages, "user_index", "left")
        .groupBy("item_index")
        .agg(
            F.count("*").alias("n"),
            F.sum("recent").alias("n_recent"),
            F.sum("dear").alias("n_dear"),
            F.avg("value").alias("mean_value"),
            F.avg("age").alias("mean_age"),
        )
    )
    joined = (
        items.select("item_index", "first_seen")
        .join(counted, "item_index", "left")
        .fillna(0, subset=["n", "n_recent", "n_dear"])
    )
    columns = {
        "item_popularity_log": F.log1p("n"),
        "item_trend_log": F.log1p("n_recent"),
        "item_trend_ratio": _smoothed("n_recent", "n", mean_recent),
        "item_age_days_log": F.log1p(_days_before(as_of, "first_seen")),
        "item_purchase_share": _smoothed("n_dear", "n", mean_dear),
        "item_mean_value": F.col("mean_value"),
        "item_mean_user_age": F.col("mean_age"),
    }
    return joined.select("item_index", *(_float(columns[name]).alias(name) for name in ITEM_FEATURES))


def _user_side(marked: DataFrame, users: DataFrame, *, as_of: datetime, mean_dear: float) -> DataFrame:
    pairs = marked.groupBy("user_index", "item_index").agg(
        F.count("*").alias("n"),
        F.sum("recent").alias("n_recent"),
        F.sum("dear").alias("n_dear"),
        F.max("event_time").alias("last"),
        F.max(F.when(F.col("consumed"), F.col("event_time"))).alias("last_consumed"),
    )
    newest = F.when(
        F.col("last_consumed").isNotNull(),
        F.struct((-F.unix_micros("last_consumed")).alias("before"), F.col("item_index")),
    )
    counted = pairs.groupBy("user_index").agg(
        F.sum("n").alias("n"),
        F.sum("n_recent").alias("n_recent"),
        F.sum("n_dear").alias("n_dear"),
        F.max("last").alias("last"),
        F.slice(F.sort_array(F.collect_list(newest)), 1, MAX_HISTORY).alias("newest"),
    )
    joined = (
        users.select("user_index", "user_id", "age_years")
        .join(counted, "user_index", "left")
        .fillna(0, subset=["n", "n_recent", "n_dear"])
    )
    columns = {
        "user_activity_log": F.log1p("n"),
        "user_recent_activity_log": F.log1p("n_recent"),
        "user_days_since_last_log": F.log1p(_days_before(as_of, "last")),
        "user_purchase_share": _smoothed("n_dear", "n", mean_dear),
        "user_age_years": F.col("age_years"),
    }
    history = F.coalesce(F.col("newest.item_index"), F.array().cast("array<int>"))
    return joined.select(
        "user_index",
        "user_id",
        *(_float(columns[name]).alias(name) for name in USER_FEATURES),
        history.alias("history"),
        F.col("n").cast("int").alias("n_events"),
    )
