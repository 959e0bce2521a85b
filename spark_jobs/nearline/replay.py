"""replay: the whole archive counted anew by the functions that the worker uses: the same digests, or somebody counted wrongly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.window import Window

from infra.contracts import features as contract
from infra.contracts.errors import ContractViolation
from infra.contracts.events import SHARDS
from infra.contracts.features import Deltas, FeaturePlan
from infra.eventlog import records as wire
from infra.nearline.archive import Stretch, stretches
from infra.snapshots.storage import Storage
from spark_jobs.frames import Batches

_READ_ROWS = 16_384
_HELD = 200_000
"""Entities whose changes a task holds before it passes them on."""

_FILES = "shard int, path string, after long, upto long"
_RECORDS = "shard int, offset long, kind string, entity_id string, event_id string, payload binary"
_DELTAS = pa.schema(
    [
        ("shard", pa.int32()),
        ("kind", pa.string()),
        ("entity_id", pa.string()),
        ("field", pa.string()),
        ("amount", pa.int64()),
    ]
)
_DELTAS_DDL = "shard int, kind string, entity_id string, field string, amount long"


@dataclass(frozen=True, slots=True)
class Source:
    """What is replayed. upto: each shard's last offset; horizon: offsets within which a record sent twice is found."""

    archive: Storage
    plan: FeaturePlan
    upto: Mapping[int, int]
    horizon: int


def source_of(archive: Storage, plan: FeaturePlan, *, horizon: int, upto: Mapping[int, int] | None) -> Source:
    """Up to those offsets, or all of the archive. Raises ContractViolation where the archive ends before an offset."""
    ends = {}
    for shard in range(SHARDS):
        found = stretches(archive, shard)
        ends[shard] = found[-1].upto if found else 0
    wanted = ends if upto is None else {shard: upto.get(shard, 0) for shard in range(SHARDS)}
    for shard, offset in wanted.items():
        if offset > ends[shard]:
            raise ContractViolation(
                f"The archive {archive.uri()} ends at offset {ends[shard]} of shard {shard}; wanted are records up to {offset}.",
                mend="Run: python -m infra.nearline archive",
            )
    return Source(archive, plan, wanted, horizon)


def lost_offsets(source: Source) -> dict[int, int]:
    """By shard, how many offsets nobody could archive; shards without a loss are left out."""
    out = {}
    for shard, upto in source.upto.items():
        lost = sum(one.upto - one.after for one in stretches(source.archive, shard, upto=upto) if one.lost)
        if lost:
            out[shard] = lost
    return out


def states(spark: SparkSession, source: Source) -> DataFrame:
    """(shard, kind, entity_id, field, amount): the state after all records up to the offsets, duplicates left out."""
    files = [one for shard, upto in source.upto.items() for one in stretches(source.archive, shard, upto=upto)]
    return states_of(_records(spark, source.archive, files), source)


def states_of(records: DataFrame, source: Source) -> DataFrame:
    """The same, from (shard, offset, kind, entity_id, event_id, payload)."""
    of_event = Window.partitionBy("shard", "kind", "entity_id", "event_id").orderBy("offset")
    before = records.withColumn("before", f.lag("offset").over(of_event))
    kept = before.where(f.col("before").isNull() | (f.col("offset") - f.col("before") > source.horizon))
    deltas = kept.select("shard", "payload").mapInArrow(functools.partial(_count, source.plan), _DELTAS_DDL)
    summed = deltas.groupBy("shard", "kind", "entity_id", "field").agg(
        f.sum("amount").alias("added"), f.max("amount").alias("raised")
    )
    amount = f.when(f.col("field").startswith("+"), f.col("added")).otherwise(f.col("raised")).alias("amount")
    return summed.select("shard", "kind", "entity_id", "field", amount)


def digests(states: DataFrame, plan: FeaturePlan, now_us: int) -> dict[int, str]:
    """Of every shard, as `python -m infra.nearline digest` gives them. A task holds the state of one shard in memory."""
    found = states.groupBy("shard").applyInArrow(_digester(plan, now_us), "shard int, digest string").toArrow()
    known = dict(zip(found["shard"].to_pylist(), found["digest"].to_pylist(), strict=True))
    return {shard: known.get(shard) or contract.digest({}, plan, now_us) for shard in range(SHARDS)}


def states_in(rows: pa.Table) -> dict[tuple[str, str], dict[str, int]]:
    """One shard's rows as states by (kind, entity id)."""
    out: dict[tuple[str, str], dict[str, int]] = {}
    columns = (rows[name].to_pylist() for name in ("kind", "entity_id", "field", "amount"))
    for kind, entity_id, field, amount in zip(*columns, strict=True):
        out.setdefault((kind, entity_id), {})[field] = amount
    return out


def _records(spark: SparkSession, archive: Storage, files: list[Stretch]) -> DataFrame:
    """A task a file; each offset once, whatever files overlap."""
    rows = [(one.shard, one.path, one.after, one.upto) for one in files if not one.lost]
    names = spark.createDataFrame(rows, _FILES).repartition(max(len(rows), 1))
    return names.mapInArrow(functools.partial(_read, archive.url), _RECORDS)


def _read(url: str, batches: Batches) -> Batches:
    archive = Storage(url)
    for batch in batches:
        for row in batch.to_pylist():
            with archive.open(row["path"]) as file:
                columns = ["offset", "kind", "entity_id", "event_id", "payload"]
                for part in pq.ParquetFile(file).iter_batches(batch_size=_READ_ROWS, columns=columns):
                    offset = pc.field("offset")
                    wanted = pa.Table.from_batches([part]).filter((offset > row["after"]) & (offset <= row["upto"]))
                    shard = pa.array([row["shard"]] * wanted.num_rows, pa.int32())
                    yield from wanted.add_column(0, "shard", shard).to_batches()


def _count(plan: FeaturePlan, batches: Batches) -> Batches:
    held: dict[int, Deltas] = {}
    for batch in batches:
        payloads: dict[int, list[bytes]] = {}
        for shard, payload in zip(batch["shard"].to_pylist(), batch["payload"].to_pylist(), strict=True):
            payloads.setdefault(shard, []).append(payload)
        for shard, own in payloads.items():
            plan.accumulate(wire.decode(own), held.setdefault(shard, {}))
        if sum(len(deltas) for deltas in held.values()) >= _HELD:
            yield from _rows(held)
            held = {}
    yield from _rows(held)


def _rows(held: Mapping[int, Deltas]) -> Iterator[pa.RecordBatch]:
    for shard, deltas in held.items():
        rows = [(shard, *entity, name, amount) for entity, state in deltas.items() for name, amount in state.items()]
        if rows:
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _DELTAS, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=_DELTAS)


def _digester(plan: FeaturePlan, now_us: int) -> Callable[[pa.Table], pa.Table]:
    """A plain function, for Spark asks it for its annotations and cannot ask a `functools.partial`."""

    def digest(rows: pa.Table) -> pa.Table:
        value = contract.digest(states_in(rows), plan, now_us)
        return pa.table({"shard": rows["shard"].slice(0, 1), "digest": [value]})

    return digest
