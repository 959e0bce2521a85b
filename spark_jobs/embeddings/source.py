"""source: a sealed dataset as Spark frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession

from infra.contracts.errors import DatasetNotFound
from infra.contracts.ids import ApplicationName, DatasetId
from infra.snapshots.storage import Storage
from spark_jobs import frames


@dataclass(frozen=True, slots=True)
class Source:
    """events, items and users as the store keeps them; last_event is the moment that a snapshot of it speaks of."""

    dataset: DatasetId
    events: DataFrame
    items: DataFrame
    users: DataFrame
    n_events: int
    n_items: int
    n_users: int
    last_event: datetime


def read_source(spark: SparkSession, store: str, application: ApplicationName, dataset: DatasetId) -> Source:
    """Open a dataset; raises DatasetNotFound where it was never sealed."""
    storage = Storage(f"{store.rstrip('/')}/{application}/datasets/{dataset}")
    if not storage.exists("dataset.json"):
        raise DatasetNotFound(
            f"There is no dataset {application}/{dataset}.",
            mend="Run: python -m spark_jobs.ingest --application ranking --source PATH",
        )
    record = json.loads(storage.read("dataset.json"))
    return Source(
        dataset=dataset,
        events=frames.read(spark, storage, "events"),
        items=frames.read(spark, storage, "items.parquet"),
        users=frames.read(spark, storage, "users.parquet"),
        n_events=int(record["counts"]["events"]),
        n_items=int(record["counts"]["items"]),
        n_users=int(record["counts"]["users"]),
        last_event=datetime.fromisoformat(record["last_event"]),
    )
