"""stream: the nearline worker as Spark Structured Streaming over Kafka, for those whom one process does not carry.

What is counted, and up to where, stands in Redis alone, moved by the worker's own fenced call. Spark's checkpoint only says where
to read on: a micro-batch that runs twice finds its offsets counted, and one that begins too late reads what lies before itself.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from infra.contracts.errors import MissingTool, OperatorError
from infra.contracts.events import SHARDS
from infra.contracts.features import FeaturePlan
from infra.contracts.ids import ApplicationName
from infra.eventlog.kafka import KafkaLog, topic_of
from infra.eventlog.protocol import Slice
from infra.nearline.applying import apply_all
from infra.nearline.counting import Horizon
from infra.nearline.state import Claim, StateStore
from infra.snapshots.connection import serving_client
from spark_jobs.frames import Batches

_TIMEOUT_S = 10.0
_LEASE_S = 5.0
_PATIENCE_S = 3 * _LEASE_S
"""How long a task waits for a shard whose last owner was killed: the claim lapses after a lease."""

_BATCH_RECORDS = 200_000
_POLL_S = 0.5
_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Work:
    """What every task is told. owner: the claims' name, this driver's own."""

    application: ApplicationName
    plan: FeaturePlan
    horizon: int
    redis_url: str
    bootstrap: str
    options: Mapping[str, str | int | bool]
    owner: str


def with_connector(folder: Path) -> None:
    """Have the JVM that starts next load Spark's Kafka connector. Raises MissingTool where its jars are not in the folder."""
    jars = sorted(folder.glob("*.jar"))
    if not jars:
        raise MissingTool(
            f"Spark's Kafka connector is not in {folder}.",
            mend="Run: make kafka-up (it fetches them too), or put the jars of spark-sql-kafka-0-10_2.13 there.",
        )
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--jars {','.join(map(str, jars))} pyspark-shell"


def start(spark: SparkSession, work: Work, *, checkpoint: str) -> StreamingQuery:
    """Begin at the offsets that Redis has, or where the checkpoint says."""
    topic = topic_of(work.application)
    offsets = asyncio.run(_offsets(work))
    # Kafka counts from 0 and names the next record: its number is that of our last one.
    starting = {topic: {str(shard): offset for shard, offset in offsets.items()}}
    reader = spark.readStream.format("kafka").options(
        **{f"kafka.{name}": str(value) for name, value in work.options.items()},
        **{
            "kafka.bootstrap.servers": work.bootstrap,
            "kafka.isolation.level": "read_committed",
            "assign": json.dumps({topic: list(range(SHARDS))}),
            "startingOffsets": json.dumps(starting),
            "failOnDataLoss": "true",
            "maxOffsetsPerTrigger": str(_BATCH_RECORDS),
        },
    )
    records = reader.load().selectExpr("partition", "offset + 1 offset", "value payload")

    def count(batch: DataFrame, _: int) -> None:
        spread = batch.repartition(SHARDS, "partition").sortWithinPartitions("partition", "offset")
        spread.mapInArrow(functools.partial(_apply, work), "shard int, offset long").toArrow()

    writer = records.writeStream.queryName(f"nearline {work.application}").foreachBatch(count)
    return writer.option("checkpointLocation", checkpoint).start()


def run(query: StreamingQuery) -> None:
    """Until SIGTERM or SIGINT; the micro-batch that is under way may be cut short, for it counts once. Raises what ended it."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while query.isActive and not stop.wait(_POLL_S):
        pass
    if query.isActive:
        query.stop()
    elif (failure := query.exception()) is not None:
        raise OperatorError(
            f"The stream ended: {str(failure).strip().splitlines()[0]}", mend="Look above, then start it again."
        )


async def _offsets(work: Work) -> dict[int, int]:
    client = serving_client(work.redis_url, timeout_s=_TIMEOUT_S)
    try:
        return await StateStore(client, work.application, work.plan).offsets()
    finally:
        await client.aclose()


def _apply(work: Work, batches: Batches) -> Batches:
    """A task's shards, one after another. Yields how far each is counted."""
    parts = list(batches)
    if not parts:
        return
    table = pa.Table.from_batches(parts)
    for shard in sorted(set(table["partition"].to_pylist())):
        rows = table.filter(pc.equal(table["partition"], shard))
        offset = asyncio.run(_count(work, shard, rows["offset"].to_pylist(), rows["payload"].to_pylist()))
        yield pa.RecordBatch.from_pydict(
            {"shard": pa.array([shard], pa.int32()), "offset": pa.array([offset], pa.int64())}
        )


async def _count(work: Work, shard: int, offsets: list[int], payloads: list[bytes]) -> int:
    client = serving_client(work.redis_url, timeout_s=_TIMEOUT_S)
    store = StateStore(client, work.application, work.plan, lease_s=_LEASE_S)
    try:
        claim = await _claim(work, store, shard)
        horizon = Horizon(work.horizon)
        if offsets[0] > claim.offset + 1:
            async for piece in _before(work, shard, claim.offset, offsets[0] - 1):
                claim = await apply_all([piece], claim, store, work.plan, horizon=horizon)
        at = next((at for at, offset in enumerate(offsets) if offset > claim.offset), len(offsets))
        if at < len(offsets):
            new, number = offsets[at:], len(offsets) - at
            piece = Slice(shard, claim.offset, new[-1], new, [0] * number, payloads[at:])
            claim = await apply_all([piece], claim, store, work.plan, horizon=horizon)
        return claim.offset
    finally:
        await client.aclose()


async def _claim(work: Work, store: StateStore, shard: int) -> Claim:
    end = time.monotonic() + _PATIENCE_S
    while True:
        claim = await store.claim(shard, work.owner)
        if claim is not None:
            return claim
        if time.monotonic() > end:
            raise OperatorError(
                f"A worker of {work.application} holds shard {shard}.",
                mend="Stop the workers: the stream takes their place.",
            )
        await asyncio.sleep(_POLL_S)


async def _before(work: Work, shard: int, after: int, upto: int) -> AsyncIterator[Slice]:
    """What lies between the state and the micro-batch: a hole, or records that a lost state has to count again. Raises LogLost."""
    log = KafkaLog(work.application, bootstrap=work.bootstrap, extra=work.options)
    try:
        while after < upto:
            found = await log.read({shard: after}, count=_PAGE)
            if not found:
                return
            piece = _cut(found[0], upto)
            yield piece
            after = piece.upto
    finally:
        await log.close()


def _cut(piece: Slice, upto: int) -> Slice:
    """The slice without what lies behind an offset."""
    number = sum(1 for offset in piece.offsets if offset <= upto)
    end = min(piece.upto, upto)
    return Slice(
        piece.shard, piece.after, end, piece.offsets[:number], piece.logged_ms[:number], piece.payloads[:number]
    )
