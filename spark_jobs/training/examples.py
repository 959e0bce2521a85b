"""examples: for each user the candidates of a moment in the past, as the scorers would have seen them, and what was taken next."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import LAST_ITEMS, RANKER_FEATURES
from infra.contracts.candidates import Float32s, Int32s
from spark_jobs.candidates.retrieval import retrieve, seen_items
from spark_jobs.embeddings.interactions import consumed, gain
from spark_jobs.training.moments import NOBODY, Crowd, Lived
from spark_jobs.training.one_list import SHOWN, Known, Listed, Sampling, example
from spark_jobs.training.past import Past, of_users

_SCHEMA = "user_index int, n_wanted int, features binary, grades binary, products binary, popular_hits binary"
_ROWS_A_BATCH = 64  # users; 76 KB each where 1000 candidates are kept whole


@dataclass(frozen=True, slots=True)
class Examples:
    """Lists of candidates with grades, one group of rows a user, at one moment each; users rising; the stored list, then the fresh.

    users: int32 [u]; counts: int64 [u], rows a user; n_wanted: int32 [u], items that the user went on to take, also those that
    are not among the candidates. matrix: float32 [rows, len(RANKER_FEATURES)]; grades: uint8 [rows], 0 where not taken;
    products: float32 [rows, LAST_ITEMS], with each of the last items alone, newest first. popular_hits: bool [u, SHOWN], the
    popular list's hits.
    """

    users: Int32s
    counts: NDArray[np.int64]
    n_wanted: Int32s
    matrix: Float32s
    grades: NDArray[np.uint8]
    products: Float32s
    popular_hits: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def starts(self) -> NDArray[np.int64]:
        """int64 [u + 1]: user i's rows are starts[i]:starts[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def found(self) -> NDArray[np.bool_]:
        """bool [u]: users with at least one taken item among their rows."""
        out: NDArray[np.bool_] = np.bincount(self.owners, self.grades > 0, minlength=len(self)) > 0
        return out

    @property
    def owners(self) -> NDArray[np.int64]:
        """int64 [rows]: the position of each row's user."""
        return np.repeat(np.arange(len(self)), self.counts)

    def where(self, keep: NDArray[np.bool_]) -> Examples:
        """Only those users. keep: bool [u]."""
        rows = keep[self.owners]
        return Examples(
            self.users[keep],
            self.counts[keep],
            self.n_wanted[keep],
            self.matrix[rows],
            self.grades[rows],
            self.products[rows],
            self.popular_hits[keep],
        )


def lived(window: DataFrame, lately: DataFrame | None, *, spec: ApplicationSpec) -> DataFrame:
    """user_index, did (array of struct at_us, item, grade, event_type, after): what was taken in the window, and shortly before."""
    columns: list[Column | str] = [
        "user_index",
        F.unix_micros("event_time").alias("at_us"),
        F.col("item_index").cast("int").alias("item"),
        gain(spec).alias("grade"),
        "event_type",
    ]
    did = consumed(window, spec).select(*columns, F.lit(True).alias("after"))
    if lately is not None:
        did = did.unionByName(consumed(lately, spec).select(*columns, F.lit(False).alias("after")))
    rows = F.sort_array(F.collect_list(F.struct("at_us", "item", "grade", "event_type", "after")))
    return did.groupBy("user_index").agg(rows.alias("did")).where(F.exists("did", lambda one: one["after"]))


def crowd(window: DataFrame, lately: DataFrame, *, spec: ApplicationSpec) -> Crowd:
    """Everybody's part of it: 12 bytes an event on the driver and in each worker."""
    both = [consumed(frame, spec).select("event_time", "item_index") for frame in (window, lately)]
    did = both[0].unionByName(both[1])
    table = did.select(F.unix_micros("event_time").alias("at_us"), "item_index").toArrow()
    times_us = table["at_us"].to_numpy()
    order = np.argsort(times_us, kind="stable")
    return Crowd(times_us[order].astype(np.int64), table["item_index"].to_numpy()[order].astype(np.int32))


def build(
    spark: SparkSession,
    past: Past,
    window: DataFrame,
    *,
    spec: ApplicationSpec,
    sampling: Sampling,
    lately: DataFrame | None = None,
) -> Examples:
    """Examples of users who had a history by then and took something new in the window, each at a moment in it.

    lately: the events shortly before the window that the stream would still count; None where users' windows lie apart, so that
    there is no board either. Computed by Spark, a worker a share of the users; of the lists, what comes to the driver is bounded by
    the sampling. No list of the cut depends on the window, and nothing that comes after a moment changes what is known at it.
    """
    known = lived(window, lately, spec=spec).join(past.activity.active(), "user_index", "left_semi")
    chosen = known.orderBy(F.xxhash64("user_index", F.lit(sampling.seed)), "user_index").limit(sampling.users).persist()
    try:
        people = chosen.join(past.people(chosen), "user_index")
        taken = past.consumed.join(chosen.select("user_index"), "user_index", "left_semi")
        seen = seen_items(taken).withColumnRenamed("seen", "taken")
        users = people.join(seen, "user_index", "left")
        users = users.withColumn("taken", F.coalesce("taken", F.array().cast("array<int>"))).persist()
        narrowed = of_users(past, users, count=users.count())
        hidden = None
        if not past.recipe.include_seen:
            hidden = users.select("user_index", F.explode("taken").alias("item_index"))
        lists, _ = retrieve(spark, narrowed.embedding, hidden, k=past.recipe.k, score_map=past.score_map)
        shared = spark.sparkContext.broadcast(
            known_of(past, NOBODY if lately is None else crowd(window, lately, spec=spec))
        )
        made = lists.mapInArrow(functools.partial(_each_batch, shared, sampling), _SCHEMA).toArrow()
        shared.destroy()
        users.unpersist()
    finally:
        chosen.unpersist()
    return _gathered(made.filter(pc.greater(made["n_wanted"], 0)).sort_by("user_index"))


def known_of(past: Past, crowd: Crowd) -> Known:
    """The past as it goes to the workers."""
    embedding = past.embedding
    return Known(
        items=past.items,
        existed=past.existed,
        popular=past.popular,
        crowd=crowd,
        item_vectors=embedding.item_vectors,
        projection=embedding.projection,
        score_map=past.score_map,
        include_seen=past.recipe.include_seen,
    )


def _each_batch(
    shared: Broadcast[Known], sampling: Sampling, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    known = shared.value
    search = known.search()
    for whole in batches:
        for low in range(0, whole.num_rows, _ROWS_A_BATCH):
            rows = whole.slice(low, _ROWS_A_BATCH).to_pylist()
            made = [example(_listed(row), known, search, sampling) for row in rows]
            yield pa.RecordBatch.from_pylist([row for row in made if row is not None], _ARROW)


_ARROW = pa.schema(
    [
        ("user_index", pa.int32()),
        ("n_wanted", pa.int32()),
        ("features", pa.binary()),
        ("grades", pa.binary()),
        ("products", pa.binary()),
        ("popular_hits", pa.binary()),
    ]
)


def _listed(row: dict[str, Any]) -> Listed:
    def packed(name: str, dtype: str) -> NDArray[np.generic]:
        return np.frombuffer(row[name] or b"", dtype)

    did = row["did"]
    return Listed(
        user_index=row["user_index"],
        item_indices=packed("item_indices", "<i4").astype(np.int32, copy=False),
        scores=packed("scores", "<f2").astype(np.float16, copy=False),
        features=packed("features", "<f2").astype(np.float16, copy=False),
        history=packed("history", "<i4").astype(np.int32, copy=False),
        taken=np.array(row["taken"] or [], np.int32),
        lived=Lived(
            times_us=np.array([one["at_us"] for one in did], np.int64),
            items=np.array([one["item"] for one in did], np.int32),
            grades=np.array([one["grade"] for one in did], np.int32),
            types=[one["event_type"] for one in did],
            after=np.array([one["after"] for one in did], np.bool_),
        ),
    )


def _gathered(table: pa.Table) -> Examples:
    def whole(name: str, dtype: str) -> NDArray[np.generic]:
        return np.frombuffer(b"".join(value.as_buffer() for value in table[name] if value.as_buffer().size), dtype)

    n, width = table.num_rows, len(RANKER_FEATURES)
    counts = np.array([value.as_buffer().size for value in table["grades"]], np.int64).reshape(n)
    return Examples(
        users=table["user_index"].to_numpy().astype(np.int32),
        counts=counts,
        n_wanted=table["n_wanted"].to_numpy().astype(np.int32),
        matrix=whole("features", "<f4").astype(np.float32, copy=False).reshape(-1, width),
        grades=whole("grades", "u1").astype(np.uint8, copy=False),
        products=whole("products", "<f4").astype(np.float32, copy=False).reshape(-1, LAST_ITEMS),
        popular_hits=whole("popular_hits", "?").astype(np.bool_, copy=False).reshape(n, SHOWN),
    )
