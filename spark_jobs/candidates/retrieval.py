"""retrieval: a user's nearest items by inner product, exact, with FAISS in Spark's Python workers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts.candidates import Float16s, Float32s, Int32s, ScoreMap
from spark_jobs.embeddings.fit import Embedding
from spark_jobs.embeddings.vectors import matrix_of

SAMPLE_USERS = 512
"""Users whose top lists set the score map's scale."""

SEARCH_ROWS = 512
"""Users a search: enough for BLAS, and what is found stays in the cache while it is mapped and ordered."""

_BLAS_THRESHOLD = 20
"""FAISS multiplies without BLAS where queries x dim is below its default; at Arrow's batch sizes that is 4 times slower."""

_TABLE_BYTES = 64 << 20

FOUND_VALUES = 4 << 20
"""What one search may find, in items of all its users: about 120 MB with the keys that order it. A user with 50,000 seen items is
searched with 80 of the kind, not with 500."""

Int64s = NDArray[np.int64]


def seen_items(consumed: DataFrame) -> DataFrame:
    """user_index, seen (array<int>, distinct): what each user has consumed."""
    return consumed.groupBy("user_index").agg(F.collect_set(F.col("item_index").cast("int")).alias("seen"))


@dataclass(frozen=True, slots=True)
class Search:
    """A search ready to run: `lists` turns batches of `users` into batches of `schema` (user_index, item_indices, scores and
    what is carried), in a worker."""

    users: DataFrame
    lists: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
    schema: str
    score_map: ScoreMap


def retrieve(
    spark: SparkSession, embedding: Embedding, seen: DataFrame | None, *, k: int, score_map: ScoreMap | None = None
) -> tuple[DataFrame, ScoreMap]:
    """Each user's best `k` items that are not in `seen`: user_index, item_indices (int32 bytes), scores (float16 bytes), and
    consumed (int32 bytes, rising): what is in `seen`.

    seen: rows of user_index, item_index (repeats allowed), or None to keep everything. Lists are ordered as the score map
    says, best first, and shorter than k only where the catalogue has no more. Every user of the embedding has one row, maybe
    with an empty list; further columns of its user_vectors are carried through. Lazy, but for the sample that sets the scale.
    """
    ready = prepare(spark, embedding, seen, k=k, score_map=score_map)
    return ready.users.mapInArrow(ready.lists, ready.schema), ready.score_map


def prepare(
    spark: SparkSession, embedding: Embedding, seen: DataFrame | None, *, k: int, score_map: ScoreMap | None = None
) -> Search:
    """What `retrieve` runs, for a caller that lets the searching worker also write: the lists then never pass the JVM."""
    users = embedding.user_vectors
    carried = [name for name in users.columns if name not in {"user_index", "vector"}]
    if score_map is None:
        score_map = fit_score_map(users, embedding.item_vectors, k=k)
    if seen is None:
        users = users.withColumn("seen", F.array().cast("array<int>"))
    else:
        known = users.join(seen_items(seen), "user_index", "left")
        users = known.withColumn("seen", F.coalesce("seen", F.array().cast("array<int>")))
    users = users.repartition(_partitions(spark, embedding.n_users), "user_index").sortWithinPartitions("user_index")
    types = {field.name: field.dataType.simpleString() for field in users.schema}
    columns = [
        "user_index int",
        "item_indices binary",
        "scores binary",
        "consumed binary",
        *(f"`{name}` {types[name]}" for name in carried),
    ]
    items = spark.sparkContext.broadcast(embedding.item_vectors)
    lists = functools.partial(_search_batches, items, k, score_map.scale, tuple(carried))
    return Search(users, lists, ", ".join(columns), score_map)


def _partitions(spark: SparkSession, n_users: int) -> int:
    """One file each: two a worker, but neither more than 20,000 users a file (120 MB) nor files of less than 250."""
    wanted = max(2 * spark.sparkContext.defaultParallelism, math.ceil(n_users / 20_000))
    return max(1, min(wanted, math.ceil(n_users / 250)))


def fit_score_map(users: DataFrame, item_vectors: Float32s, *, k: int) -> ScoreMap:
    """The scale from the top lists of a fixed sample of users: see `scale_of`."""
    sample = users.select("user_index", "vector").orderBy(F.xxhash64("user_index")).limit(SAMPLE_USERS).toArrow()
    if sample.num_rows == 0 or item_vectors.size == 0:
        return ScoreMap(1.0)
    products, _ = search(matrix_of(sample["vector"]), item_vectors, k=min(k, len(item_vectors)))
    return ScoreMap(scale_of(products))


def scale_of(products: Float32s) -> float:
    """A scale at which float16 keeps most inner products apart; products: float32 [users, k], falling, of a sample of users.

    Well above the scale the map is linear and well below it exponential, and there float16 has its 11 bits for differences;
    near zero it has fewer. So an eighth of the usual last product of a list; but large enough that the lowest product
    stays where float16 is normal, and the highest where it is finite.
    """
    if products.size == 0:
        return 1.0
    last = float(np.median(np.abs(products[:, -1])))
    scale = max(last / 8, -float(products.min()) / 8, float(products.max()) / 4096)
    return scale if np.isfinite(scale) and scale > 0 else 1.0


def search(queries: Float32s, items: Float32s, *, k: int) -> tuple[Float32s, Int64s]:
    """Inner products falling and item indices, [n, k]: exact search of queries float32 [n, d] in items float32 [m, d]."""
    faiss.cvar.distance_compute_blas_threshold = _BLAS_THRESHOLD
    products, indices = faiss.knn(np.ascontiguousarray(queries), items, k, metric=faiss.METRIC_INNER_PRODUCT)
    return products, indices


def _search_batches(
    shared: Broadcast[Float32s], k: int, scale: float, carried: tuple[str, ...], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    faiss.omp_set_num_threads(1)
    items, score_map = shared.value, ScoreMap(scale)
    slices = (batch.slice(low, SEARCH_ROWS) for batch in batches for low in range(0, batch.num_rows, SEARCH_ROWS))
    for batch in slices:
        seen = batch.column("seen")
        indices, scores, counts = unseen_lists(
            matrix_of(batch.column("vector")),
            items,
            seen=seen.flatten().to_numpy(),
            seen_counts=np.diff(seen.offsets.to_numpy()),
            k=k,
            score_map=score_map,
        )
        columns = [
            batch.column("user_index"),
            packed(indices, counts),
            packed(scores, counts),
            packed_lists(rising(seen)),
        ]
        columns += [batch.column(name) for name in carried]
        yield pa.RecordBatch.from_arrays(columns, ["user_index", "item_indices", "scores", "consumed", *carried])


def rising(lists: pa.ListArray) -> pa.ListArray:
    """The same lists of int32, each in rising order."""
    values, counts = lists.flatten().to_numpy(), lists.value_lengths().to_numpy(zero_copy_only=False)
    order = np.lexsort((values, np.repeat(np.arange(len(counts)), counts)))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[order], pa.int32()))


def unseen_lists(
    queries: Float32s, items: Float32s, *, seen: Int32s, seen_counts: NDArray[np.integer], k: int, score_map: ScoreMap
) -> tuple[Int32s, Float16s, Int64s]:
    """The best k unseen items of each query: indices int32 [n, k], stored scores float16 [n, k], lengths [n].

    seen: all queries' seen items one after another (each once a query), seen_counts of them each. A search finds k plus what
    must be dropped; queries are searched together with those that have about as much to drop, so that one heavy user does
    not lengthen everybody's search.
    """
    n, k = len(queries), min(k, len(items))
    indices = np.zeros((n, k), np.int32)
    scores = np.zeros((n, k), np.float16)
    counts = np.zeros(n, np.int64)
    starts = np.concatenate([[0], np.cumsum(seen_counts)])
    for rows, width in _alike(seen_counts, k=k, n_items=len(items)):
        products, found = search(queries[rows], items, k=width)
        mine = np.concatenate([seen[starts[row] : starts[row + 1]] for row in rows])
        keep = found >= 0
        if len(mine):
            keep &= ~_is_seen(found, mine, seen_counts[rows], n_items=len(items))
            keep &= np.cumsum(keep, axis=1) <= k
        best, stored = _in_stored_order(found, score_map.stored(products), keep)
        indices[rows], scores[rows], counts[rows] = best[:, :k], stored[:, :k], keep.sum(axis=1)
    return indices, scores, counts


def _alike(seen_counts: NDArray[np.integer], *, k: int, n_items: int) -> Iterator[tuple[Int64s, int]]:
    """Rows whose seen counts differ by at most a factor of two (below 64: together), and how many items to find for each.

    A group finds at most FOUND_VALUES items in all, or is one row.
    """
    order = np.argsort(seen_counts, kind="stable")
    classes = np.ceil(np.log2(np.maximum(seen_counts[order], 64)))
    for group in np.split(order, np.flatnonzero(np.diff(classes)) + 1):
        height = max(1, FOUND_VALUES // max(1, min(n_items, k + int(seen_counts[group].max(initial=0)))))
        for low in range(0, len(group), height):
            rows = group[low : low + height]
            yield rows, min(n_items, k + int(seen_counts[rows].max()))


def _is_seen(found: Int64s, seen: Int32s, seen_counts: NDArray[np.integer], *, n_items: int) -> NDArray[np.bool_]:
    """Whether each found item, int64 [n, width], is among its row's seen ones; by a table of flags, some rows at a time."""
    out = np.zeros(found.shape, bool)
    height = max(1, min(len(found), _TABLE_BYTES // n_items))
    table = np.zeros((height, n_items), bool)
    starts = np.concatenate([[0], np.cumsum(seen_counts)])
    for low in range(0, len(found), height):
        high = min(len(found), low + height)
        rows = np.repeat(np.arange(high - low), seen_counts[low:high])
        columns = seen[starts[low] : starts[high]]
        table[rows, columns] = True
        out[low:high] = np.take_along_axis(table[: high - low], found[low:high], axis=1)
        table[rows, columns] = False
    return out


def _in_stored_order(found: Int64s, stored: Float16s, keep: NDArray[np.bool_]) -> tuple[Int32s, Float16s]:
    """Each row by falling stored score, ties by rising index, what is not kept last.

    One sort of 64-bit keys: the bits of non-negative floats rise with them, so 0xffff minus the bits, then the index.
    """
    keys = ((0xFFFF - stored.view(np.uint16).astype(np.int64)) << 32) | found
    keys[~keep] = np.iinfo(np.int64).max
    keys.sort(axis=1)
    bits = (0xFFFF - (keys >> 32)).astype(np.uint16)
    return (keys & 0xFFFFFFFF).astype(np.int32), bits.view(np.float16)


def packed(rows: NDArray[np.generic], counts: NDArray[np.integer]) -> pa.Array:
    """The first counts[i] values of each row as one binary value a row; without a copy where the rows are full."""
    full = bool(np.all(counts == rows.shape[1]))
    values = np.ascontiguousarray(rows) if full else rows[np.arange(rows.shape[1]) < counts[:, None]]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32) * np.int32(rows.itemsize)
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(counts), buffers)


def packed_lists(column: pa.ListArray) -> pa.Array:
    """A column of int32 lists as one binary value a row."""
    values = column.flatten().to_numpy(zero_copy_only=False).astype("<i4")
    offsets = np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))]) * 4
    return pa.Array.from_buffers(
        pa.binary(), len(column), [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(values)]
    )
