"""shown: from the archives to labelled rows: what was shown to whom, with which features, and what the user did with it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.errors import ContractViolation
from infra.contracts.events import SHARDS
from infra.eventlog import records as wire
from infra.eventlog.decisions import LoggedDecision
from infra.nearline.archive import Stretch, read_stretch, stretches_since
from infra.nearline.decision_archive import Span, place_of, read_span, spans
from infra.snapshots.storage import Storage
from spark_jobs.embeddings.interactions import gain

Batches = Iterator[pa.RecordBatch]

SHOWN_SCHEMA = pa.schema(
    [
        pa.field("position", pa.string()),  # of the answer, in the log of answers
        pa.field("request_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("at_ms", pa.int64()),  # when the answer was begun
        pa.field("version", pa.string()),
        pa.field("generation", pa.int64()),
        pa.field("arm", pa.string()),
        pa.field("decided_by", pa.string()),
        pa.field("degraded", pa.bool_()),
        pa.field("place", pa.int32()),  # in the list, from 0; -1 for a candidate that was not shown
        pa.field("item_id", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("features", pa.list_(pa.float32())),  # as served; null where the item came without
        pa.field("nearline", pa.string()),  # JSON: the user's nearline features as served
    ]
)
"""A row an item of an answer."""

LABELLED_SCHEMA = pa.schema(
    [
        *SHOWN_SCHEMA,
        pa.field("grade", pa.int32()),  # the highest gain of what the user did with it within the visit; 0: nothing
        pa.field("event_type", pa.string()),  # of that; null: nothing
        pa.field("acted_ms", pa.int64()),  # when the first such event was logged
    ]
)

_EVENTS_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("logged_ms", pa.int64()),
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("event_id", pa.string()),
    ]
)

_KEY = ("position", "item_id")


def shown(spark: SparkSession, archive: Storage, *, since: datetime, until: datetime) -> DataFrame:
    """SHOWN_SCHEMA: every item of the answers that were logged from `since` up to before `until`; a task a file."""
    tasks = [(json.dumps(asdict(span)),) for span in spans(archive, since=since, until=until)]
    bounds = (since.timestamp() * 1000, until.timestamp() * 1000)
    return _tasks(spark, tasks).mapInArrow(
        functools.partial(_read_shown, archive.url, bounds), from_arrow_schema(SHOWN_SCHEMA)
    )


def shown_rows(entry: LoggedDecision) -> list[dict[str, object]]:
    """The items of one answer that were logged with it, best first."""
    decision = entry.decision()
    whole = {
        "position": entry.position,
        "request_id": decision.request_id,
        "user_id": decision.user_id,
        "at_ms": decision.basis.now_us // 1000,
        "version": decision.version,
        "generation": decision.generation,
        "arm": decision.arm.value,
        "decided_by": decision.decided_by,
        "degraded": decision.degraded,
        "nearline": json.dumps(dict(decision.nearline)),
    }
    vectors = list(decision.features)
    return [
        {
            **whole,
            "place": place,
            "item_id": item,
            "score": score,
            "features": vectors[place] if place < len(vectors) else None,
        }
        for place, (item, score) in enumerate(zip(decision.items, decision.scores, strict=True))
    ]


def events(spark: SparkSession, archive: Storage, *, since: datetime, until: datetime, horizon: int) -> DataFrame:
    """What users did with items and was logged from `since` up to before `until`, by the log's clock, each event once.

    A record is left out where the same event stands within `horizon` offsets before it in its shard, as everywhere.
    """
    tasks: list[tuple[str]] = []
    for shard in range(SHARDS):
        tasks += [(json.dumps(asdict(one)),) for one in stretches_since(archive, shard, since, horizon=horizon)]
    found = _tasks(spark, tasks).mapInArrow(
        functools.partial(_read_events, archive.url), from_arrow_schema(_EVENTS_SCHEMA)
    )
    before = F.lag("offset").over(Window.partitionBy("shard", "user_id", "event_id").orderBy("offset"))
    once = found.withColumn("before", before).where(
        F.col("before").isNull() | (F.col("offset") - F.col("before") > horizon)
    )
    low, high = (int(moment.timestamp() * 1000) for moment in (since, until))
    return once.where((F.col("logged_ms") >= low) & (F.col("logged_ms") < high)).drop("before")


def labelled(rows: DataFrame, did: DataFrame, *, spec: ApplicationSpec, visit: timedelta) -> DataFrame:
    """LABELLED_SCHEMA: the rows (SHOWN_SCHEMA), each with the best that its user did with its item from then to the visit's end."""
    visit_ms = int(visit.total_seconds() * 1000)
    worth = did.select("user_id", "item_id", "logged_ms", "event_type", gain(spec).alias("gain")).where("gain > 0")
    asked = rows.select(*_KEY, "user_id", "at_ms")
    after = F.col("logged_ms") - F.col("at_ms")
    acted = asked.join(worth, ["user_id", "item_id"]).where((after >= 0) & (after < visit_ms))
    best = acted.groupBy(*_KEY).agg(
        F.max("gain").alias("grade"),
        F.max_by("event_type", F.struct("gain", (-F.col("logged_ms")).alias("earliest"))).alias("event_type"),
        F.min("logged_ms").alias("acted_ms"),
    )
    joined = rows.join(best, list(_KEY), "left").withColumn("grade", F.coalesce("grade", F.lit(0)))
    return joined.select(*LABELLED_SCHEMA.names)


def _tasks(spark: SparkSession, tasks: list[tuple[str]]) -> DataFrame:
    return spark.createDataFrame(tasks, "task string").repartition(max(1, min(len(tasks), 64)))


def _read_shown(url: str, bounds: tuple[float, float], batches: Batches) -> Batches:
    archive = Storage(url)
    for task in _each(batches):
        said = json.loads(task)
        span = Span(said["path"], *(tuple(said[name]) for name in ("first", "last", "after")))
        rows: list[dict[str, object]] = []
        for entry in read_span(archive, span):
            if bounds[0] <= place_of(entry.position)[0] < bounds[1]:
                try:
                    rows += shown_rows(entry)
                except ContractViolation:
                    continue  # of another release
            if len(rows) >= 10_000:
                yield from pa.Table.from_pylist(rows, schema=SHOWN_SCHEMA).to_batches()
                rows = []
        yield from pa.Table.from_pylist(rows, schema=SHOWN_SCHEMA).to_batches()


def _read_events(url: str, batches: Batches) -> Batches:
    archive = Storage(url)
    for task in _each(batches):
        piece = read_stretch(archive, Stretch(**json.loads(task)))
        rows = [
            {
                "shard": piece.shard,
                "offset": offset,
                "logged_ms": logged_ms,
                "user_id": record.entity_id,
                "item_id": record.item_id,
                "event_type": record.event_type,
                "event_id": record.event_id,
            }
            for offset, logged_ms, record in zip(
                piece.offsets, piece.logged_ms, wire.decode(piece.payloads), strict=True
            )
            if record.kind == "user"
        ]
        yield from pa.Table.from_pylist(rows, schema=_EVENTS_SCHEMA).to_batches()


def _each(batches: Batches) -> Iterator[str]:
    for batch in batches:
        yield from batch.column("task").to_pylist()
