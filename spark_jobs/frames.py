"""frames: Parquet on the store as Spark frames, and Spark frames as plain Parquet files on the store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from infra.contracts.errors import DatasetNotFound
from infra.snapshots.storage import Storage

_READ_ROWS = 65_536

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class Written:
    """What one `write` left behind: files relative to the storage's root, and rows in all."""

    files: tuple[str, ...]
    rows: int


def read(spark: SparkSession, storage: Storage, path: str, *, columns: Sequence[str] | None = None) -> DataFrame:
    """A Parquet file, or all below a folder.

    On a disk Spark reads it; on an object store the Python workers do by fsspec, so that one set of credentials and
    drivers serves every part of headgate and Spark needs no Hadoop connector.
    """
    if not storage.is_local:
        return read_by_workers(spark, storage, path, columns=columns)
    _, schema = _layout(storage, path)  # given, not inferred: that would be a Spark job
    frame = spark.read.schema(from_arrow_schema(schema)).parquet(storage.full(path))
    return frame.select(*columns) if columns else frame


def read_by_workers(
    spark: SparkSession, storage: Storage, path: str, *, columns: Sequence[str] | None = None
) -> DataFrame:
    """`read` for any fsspec URL: one task a file, row groups streamed."""
    files, schema = _layout(storage, path)
    if columns:
        schema = pa.schema([schema.field(name) for name in columns])
    names = spark.createDataFrame([(name,) for name in files], "file string").repartition(len(files), "file")
    return names.mapInArrow(functools.partial(_read_files, storage.url, schema), from_arrow_schema(schema))


def _layout(storage: Storage, path: str) -> tuple[list[str], pa.Schema]:
    """The files at a path and the schema of the first, which is that of all."""
    files = [name for name in storage.files(path) if name.endswith(".parquet")] if storage.exists(path) else []
    if not files:
        raise DatasetNotFound(f"There is no Parquet file at {storage.uri(path)}.", mend="Import or build it again.")
    with storage.open(files[0]) as file:
        schema = pq.read_schema(file).remove_metadata()
    return files, pa.schema([_plain(field) for field in schema])


def _plain(field: pa.Field) -> pa.Field:
    """Dictionary columns as what they stand for."""
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _read_files(url: str, schema: pa.Schema, batches: Batches) -> Batches:
    storage = Storage(url)
    for batch in batches:
        for name in batch.column("file").to_pylist():
            with storage.open(name) as file:
                for rows in pq.ParquetFile(file).iter_batches(batch_size=_READ_ROWS, columns=schema.names):
                    yield from (pa.Table.from_batches([rows]).select(schema.names).cast(schema).to_batches())


def write(
    frame: DataFrame,
    storage: Storage,
    folder: str,
    *,
    schema: pa.Schema,
    through: Callable[[Batches], Batches] | None = None,
) -> Written:
    """Write a frame below a folder, one file a partition that has rows, by the Python workers through fsspec.

    through: applied to each partition's batches before they are written, in the same worker.

    A file's name holds the task's attempt: a task that ran twice leaves one file too many, which is removed, and never
    two writers of one file. An empty frame leaves one file without rows, so that the table exists.
    """
    writer = functools.partial(_write_partition, storage.url, folder, schema, through)
    done = frame.mapInArrow(writer, "file string, row_count long").toArrow()
    files = sorted(done["file"].to_pylist())
    if not files:
        files = [f"{folder}/part-00000.parquet"]
        with storage.open(files[0], "wb") as file:
            pq.write_table(schema.empty_table(), file)
    for name in set(storage.files(folder)) - set(files):
        storage.remove(name)
    return Written(tuple(files), sum(done["row_count"].to_pylist()))


def _write_partition(
    url: str, folder: str, schema: pa.Schema, through: Callable[[Batches], Batches] | None, batches: Batches
) -> Batches:
    if through is not None:
        batches = through(batches)
    storage = Storage(url)
    task = TaskContext.get()
    partition, attempt = (task.partitionId(), task.taskAttemptId()) if task else (0, 0)
    name = f"{folder}/part-{partition:05d}-{attempt}.parquet"
    encoded = [field.name for field in schema if pa.types.is_string(field.type)]
    rows = 0
    first = next((batch for batch in batches if batch.num_rows), None)
    if first is None:
        return
    with storage.open(name, "wb") as file, pq.ParquetWriter(file, schema, use_dictionary=encoded) as writer:
        for batch in _with_first(first, batches):
            rows += batch.num_rows
            writer.write_table(pa.Table.from_batches([batch]).select(schema.names).cast(schema))
    yield pa.RecordBatch.from_pydict({"file": [name], "row_count": pa.array([rows], pa.int64())})


def _with_first(first: pa.RecordBatch, rest: Batches) -> Batches:
    yield first
    yield from rest
