"""bench_batch: what Spark costs on top of FAISS: `python -m tests.bench.bench_batch [--users N --items N --dim N --repeats N]`.

spark_parquet_vs_faiss_ratio = users/s of Spark, from vectors on disk to packed candidates in Parquet, divided by users/s of
FAISS called directly on the same matrix in memory, with as many threads as Spark has workers. Both are the median of the
repeats, taken in turn, after one run of each to warm up.

redis_bytes_vs_payload_ratio = growth of a fresh Redis's used_memory while a snapshot is loaded, divided by the bytes of its packed
records. Bytes, not times: it holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from infra.catalog.features.ranking import USER_FEATURES
from infra.config import console
from infra.contracts.candidates import MAX_HISTORY, Float32s, ScoreMap
from infra.contracts.snapshots import State
from infra.snapshots.connection import batch_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.serving_copy import LoadReport
from infra.snapshots.storage import Storage
from infra.snapshots.tables import CANDIDATES_SCHEMA, USER_VECTORS
from infra.snapshots.versions import SnapshotStore
from spark_jobs import frames
from spark_jobs.candidates.retrieval import fit_score_map, prepare, search
from spark_jobs.embeddings.fit import Embedding
from spark_jobs.embeddings.vectors import USER_VECTORS_SCHEMA, unit, vector_column
from spark_jobs.session import running
from tests.bench.report import Report
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import TinyWorld, build_tiny_snapshot

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
    loaded = load_into_redis(users=chosen.users, items=chosen.items, k=chosen.top)
    report.figures["spark_parquet_vs_faiss_ratio"] = round(direct_s / spark_s, 3)
    report.figures["redis_bytes_vs_payload_ratio"] = round(loaded.redis_bytes / loaded.payload_bytes, 4)
    report.controls |= {
        "faiss_direct_users_per_s": round(chosen.users / direct_s),
        "spark_parquet_users_per_s": round(chosen.users / spark_s),
        "redis_payload_bytes_per_user": round(loaded.payload_bytes / loaded.users, 1),
        "redis_bytes_per_user": round(loaded.redis_bytes / loaded.users, 1),
        "redis_load_s": round(loaded.seconds, 2),
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


def load_into_redis(*, users: int, items: int, k: int) -> LoadReport:
    """A sealed snapshot, its lists of `k` random items and its histories and features as long as usual, by the load step's code."""
    rng = np.random.default_rng(3)
    histories = [rng.integers(0, items, rng.integers(1, MAX_HISTORY + 5), np.int32) for _ in range(users)]
    world = TinyWorld(np.zeros((users, 1), np.float32), np.zeros((items, 1), np.float32), histories, user_ids(users))
    scores = np.linspace(9, 1, k, dtype=np.float16).astype("<f2").tobytes()
    features = np.ones(len(USER_FEATURES), "<f2").tobytes()
    rows: list[dict[str, object]] = [
        {
            "user_index": user,
            "user_id": world.user_ids[user],
            "item_indices": rng.integers(0, items, k, np.int32).astype("<i4").tobytes(),
            "scores": scores,
            "features": features,
            "history": histories[user][:MAX_HISTORY].astype("<i4").tobytes(),
            "consumed": np.unique(histories[user]).astype("<i4").tobytes(),
        }
        for user in range(users)
    ]
    with tempfile.TemporaryDirectory() as folder:
        version = build_tiny_snapshot(folder, world=world, k=k, rows=rows)
        version.record(State.VALIDATED, actor="bench", reason="bench")
        redis = RedisProcess(Path(folder))
        redis.start()
        try:
            promotion = Promotion(SnapshotStore(folder, version.application), batch_client(redis.url))
            return promotion.load(version, limit_fraction=1.0)
        finally:
            redis.stop()


def user_ids(users: int) -> list[str]:
    """As the sample world names them."""
    return [f"u{user:07d}" for user in range(users)]


def seconds(action: Callable[[], None]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
