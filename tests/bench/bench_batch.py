"""bench_batch: what Spark costs on top of FAISS: `python -m tests.bench.bench_batch [--users N --items N --dim N --repeats N]`.

spark_parquet_vs_faiss_ratio = users/s of Spark, from vectors on disk to packed candidates in Parquet, divided by users/s of
FAISS called directly on the same matrix in memory, with as many threads as Spark has workers. Both are the median of the
repeats, taken in turn, after one run of each to warm up.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from infra.config import console
from infra.contracts.candidates import Float32s, ScoreMap
from infra.snapshots.storage import Storage
from infra.snapshots.tables import CANDIDATES_SCHEMA, USER_VECTORS
from spark_jobs import frames
from spark_jobs.candidates.retrieval import fit_score_map, prepare, search
from spark_jobs.embeddings.fit import Embedding
from spark_jobs.embeddings.vectors import USER_VECTORS_SCHEMA, unit, vector_column
from spark_jobs.session import running
from tests.bench.report import Report

_LISTS_SCHEMA = pa.schema([CANDIDATES_SCHEMA.field(name) for name in ("user_index", "item_indices", "scores")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 20_000), ("items", 20_000), ("dim", 128), ("top", 1000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    rng = np.random.default_rng(1)
    users = unit(rng.standard_normal((chosen.users, chosen.dim), np.float32))
    items = rng.standard_normal((chosen.items, chosen.dim), np.float32)
    report = Report("batch")
    with running("bench") as spark, tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        write_users(storage, users)
        embedding = Embedding(items, frames.read(spark, storage, USER_VECTORS), len(users), "bench", items[:0, 0])
        score_map = fit_score_map(embedding.user_vectors, items, k=chosen.top)
        threads = spark.sparkContext.defaultParallelism
        direct = functools.partial(search_directly, users, items, k=chosen.top, threads=threads)
        through = functools.partial(search_in_spark, spark, storage, embedding, k=chosen.top, score_map=score_map)
        direct(), through()
        with report.watching():
            taken = [(seconds(direct), seconds(through)) for _ in range(chosen.repeats)]
    direct_s, spark_s = (statistics.median(column) for column in zip(*taken, strict=True))
    report.figures["spark_parquet_vs_faiss_ratio"] = round(direct_s / spark_s, 3)
    report.controls |= {
        "faiss_direct_users_per_s": round(chosen.users / direct_s),
        "spark_parquet_users_per_s": round(chosen.users / spark_s),
        "users": chosen.users,
        "items": chosen.items,
        "dim": chosen.dim,
        "candidates_per_user": chosen.top,
        "threads": threads,
        "repeats": chosen.repeats,
    }
    path = report.write()
    console.result({"path": str(path), "valid": report.valid, **report.figures, **report.controls})


def write_users(storage: Storage, users: Float32s) -> None:
    """The vectors as the embed step leaves them."""
    index = pa.array(np.arange(len(users), dtype=np.int32))
    table = pa.Table.from_arrays([index, vector_column(users)], schema=USER_VECTORS_SCHEMA)
    with storage.open(f"{USER_VECTORS}/part-00000.parquet", "wb") as file:
        pq.write_table(table, file)


def search_directly(users: Float32s, items: Float32s, *, k: int, threads: int) -> None:
    """FAISS alone: nothing is dropped, mapped, ordered or written."""
    faiss.omp_set_num_threads(threads)
    search(users, items, k=k)


def search_in_spark(
    spark: SparkSession, storage: Storage, embedding: Embedding, *, k: int, score_map: ScoreMap
) -> None:
    """The candidates step's own search and write."""
    ready = prepare(spark, embedding, None, k=k, score_map=score_map)
    written = frames.write(ready.users, storage, "candidates", schema=_LISTS_SCHEMA, through=ready.lists)
    if written.rows != embedding.n_users:
        raise RuntimeError(f"{written.rows} users were written, {embedding.n_users} were asked for.")


def seconds(action: Callable[[], None]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
