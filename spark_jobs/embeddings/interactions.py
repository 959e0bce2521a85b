"""interactions: what of a user's events counts as wanting an item, and how much."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec


def gain(spec: ApplicationSpec) -> Column:
    """The specification's gain of each event's type, as an integer column."""
    column = F.lit(spec.default_gain)
    for event_type, worth in spec.event_gain.items():
        column = F.when(F.col("event_type") == event_type, F.lit(worth)).otherwise(column)
    return column.cast("int")


def up_to(events: DataFrame, *, as_of: datetime) -> DataFrame:
    """The events that had happened by then."""
    return events.where(F.col("event_time") <= F.lit(as_of))


def consumed(events: DataFrame, spec: ApplicationSpec) -> DataFrame:
    """The events that count as consumption: those of a positive gain. A view (gain 0) is neither learnt from nor 'seen'."""
    return events.where(gain(spec) > 0)


def interactions(events: DataFrame, spec: ApplicationSpec) -> DataFrame:
    """user_index, item_index, weight (the event's gain): what an embedder learns from; repeats are left in."""
    return consumed(events, spec).select("user_index", "item_index", gain(spec).cast("float").alias("weight"))
