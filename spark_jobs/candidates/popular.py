"""popular: what to show a user without history: what many users took lately, and what they take right now."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.candidates import Float32s
from infra.snapshots.tables import POPULAR_SCHEMA
from spark_jobs.embeddings.interactions import consumed, up_to

HALF_LIFE = timedelta(days=14)
"""A user's last event with an item counts half as much for `popular` after this long."""


def popular(events: DataFrame, *, n_items: int, length: int, as_of: datetime, spec: ApplicationSpec) -> pa.Table:
    """Two ranked lists of POPULAR_SCHEMA, ties by the lower item index.

    popular: distinct users, each by the age of the last event with the item, 2^(-age / HALF_LIFE); the whole catalogue
    where it is shorter than `length`, so that a backfill never runs out. trending: distinct users of the application's trend
    window; only items that have any.
    """
    age_s = (F.unix_micros(F.lit(as_of)) - F.unix_micros("last")) / 1e6
    pairs = consumed(up_to(events, as_of=as_of), spec).groupBy("user_index", "item_index")
    counted = (
        pairs.agg(F.max("event_time").alias("last"))
        .groupBy("item_index")
        .agg(
            F.sum(F.pow(F.lit(2.0), -age_s / HALF_LIFE.total_seconds())).cast("float").alias("popular"),
            F.sum((age_s < spec.trend_window.total_seconds()).cast("int")).cast("float").alias("trending"),
        )
        .toArrow()
    )
    tables = []
    for name in ("popular", "trending"):
        scores = np.zeros(n_items, np.float32)
        scores[counted["item_index"].to_numpy()] = counted[name].to_numpy()
        tables.append(_ranked(name, scores, length=length, keep_zeros=name == "popular"))
    return pa.concat_tables(tables)


def _ranked(name: str, scores: Float32s, *, length: int, keep_zeros: bool) -> pa.Table:
    order = np.lexsort((np.arange(len(scores)), -scores))[:length]
    if not keep_zeros:
        order = order[scores[order] > 0]
    columns = [
        pa.array([name] * len(order), pa.string()),
        pa.array(np.arange(len(order), dtype=np.int32)),
        pa.array(order.astype(np.int32)),
        pa.array(scores[order]),
    ]
    return pa.Table.from_arrays(columns, schema=POPULAR_SCHEMA)
