"""examples: for each user the candidates of an earlier moment, as the ranker would have seen them, and what was wanted next."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import RANKER_FEATURES, ItemColumns, ranker_matrix
from infra.contracts.candidates import Float32s, Int32s
from spark_jobs.candidates.retrieval import retrieve, seen_items
from spark_jobs.embeddings.interactions import consumed, gain
from spark_jobs.training.past import Past, of_users

SHOWN = 10
"""Positions that the metrics look at."""

_SCHEMA = "user_index int, n_wanted int, features binary, grades binary, ranks binary, popular_hits binary"
_ROWS_A_BATCH = 64  # users; 76 KB each where 1000 candidates are kept whole


@dataclass(frozen=True, slots=True)
class Examples:
    """Lists of candidates with grades, one group of rows a user, users rising, rows in the order of the list.

    users: int32 [u]; counts: int64 [u], rows a user; n_wanted: int32 [u], items that the user went on to take, also those that
    are not among the candidates. matrix: float32 [rows, len(RANKER_FEATURES)]; grades: uint8 [rows], 0 where not taken;
    ranks: int32 [rows], position in the whole list. popular_hits: bool [u, SHOWN], the popular list's hits.
    """

    users: Int32s
    counts: NDArray[np.int64]
    n_wanted: Int32s
    matrix: Float32s
    grades: NDArray[np.uint8]
    ranks: Int32s
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
            self.ranks[rows],
            self.popular_hits[keep],
        )


@dataclass(frozen=True, slots=True)
class Sampling:
    """users: at most so many; negatives: at most so many candidates a user that were not taken, None: all; seed: which ones."""

    users: int
    negatives: int | None
    seed: int


def wanted(window: DataFrame, *, spec: ApplicationSpec) -> DataFrame:
    """user_index, items, grades (array<int>): what each user took in the window, each item once, by its highest gain."""
    taken = consumed(window, spec).groupBy("user_index", "item_index").agg(F.max(gain(spec)).alias("grade"))
    rows = F.sort_array(F.collect_list(F.struct("item_index", "grade")))
    grouped = taken.groupBy("user_index").agg(rows.alias("rows"))
    return grouped.select("user_index", F.col("rows.item_index").alias("items"), F.col("rows.grade").alias("grades"))


def build(spark: SparkSession, past: Past, window: DataFrame, *, spec: ApplicationSpec, sampling: Sampling) -> Examples:
    """Examples of users who had a history by then and took something new in the window.

    Computed by Spark, a worker a share of the users; what comes to the driver is bounded by the sampling, however large the
    data. Nobody's list or features depend on the window: it only chooses users and gives grades.
    """
    known = wanted(window, spec=spec).join(past.activity.active(), "user_index", "left_semi")
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
            Known(past.items, past.existed, past.popular, include_seen=past.recipe.include_seen)
        )
        made = lists.mapInArrow(functools.partial(_each_batch, shared, sampling), _SCHEMA).toArrow()
        shared.destroy()
        users.unpersist()
    finally:
        chosen.unpersist()
    return _gathered(made.filter(pc.greater(made["n_wanted"], 0)).sort_by("user_index"))


@dataclass(frozen=True, slots=True)
class Known:
    """What every worker needs of a past: see Past."""

    items: ItemColumns
    existed: NDArray[np.bool_]
    popular: Int32s
    include_seen: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """One user's list of then, whole. item_indices: int32 [n], scores: float16 [n], features: float16 [f], history: int32 [h]:
    as stored; taken: int32, consumed by then; wanted_items, wanted_grades: int32 [w], taken afterwards, items rising."""

    user_index: int
    item_indices: Int32s
    scores: NDArray[np.float16]
    features: NDArray[np.float16]
    history: Int32s
    taken: Int32s
    wanted_items: Int32s
    wanted_grades: Int32s


def _each_batch(
    shared: Broadcast[Known], sampling: Sampling, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    known = shared.value
    for whole in batches:
        for low in range(0, whole.num_rows, _ROWS_A_BATCH):
            rows = whole.slice(low, _ROWS_A_BATCH).to_pylist()
            yield pa.RecordBatch.from_pylist([example(_listed(row), known, sampling) for row in rows], _ARROW)


_ARROW = pa.schema(
    [
        ("user_index", pa.int32()),
        ("n_wanted", pa.int32()),
        ("features", pa.binary()),
        ("grades", pa.binary()),
        ("ranks", pa.binary()),
        ("popular_hits", pa.binary()),
    ]
)


def _listed(row: dict[str, object]) -> Listed:
    def packed(name: str, dtype: str) -> NDArray[np.generic]:
        content = row[name]
        return np.frombuffer(content if isinstance(content, bytes) else b"", dtype)

    def ints(name: str) -> Int32s:
        content = row[name]
        return np.array(content if isinstance(content, list) else [], np.int32)

    return Listed(
        user_index=int(str(row["user_index"])),
        item_indices=packed("item_indices", "<i4").astype(np.int32, copy=False),
        scores=packed("scores", "<f2").astype(np.float16, copy=False),
        features=packed("features", "<f2").astype(np.float16, copy=False),
        history=packed("history", "<i4").astype(np.int32, copy=False),
        taken=ints("taken"),
        wanted_items=ints("items"),
        wanted_grades=ints("grades"),
    )


def example(user: Listed, known: Known, sampling: Sampling) -> dict[str, object]:
    """One user's row of what goes to the driver; see Examples.

    A candidate that was not in the catalogue yet leaves the list: a snapshot of then could not have held it. An item taken
    before is not wanted anew, and hidden from every list, unless the snapshot includes what users have seen.
    """
    hidden = np.zeros(0, np.int32) if known.include_seen else user.taken
    new = ~np.isin(user.wanted_items, hidden)
    wanted_items, wanted_grades = user.wanted_items[new], user.wanted_grades[new]
    there = known.existed[user.item_indices]
    items, scores = user.item_indices[there], user.scores[there]
    grades = np.zeros(len(items), np.uint8)
    _, at, which = np.intersect1d(items, wanted_items, return_indices=True)
    grades[at] = wanted_grades[which]
    rows = _kept(grades, sampling, user_index=user.user_index)
    matrix = ranker_matrix(
        user.features,
        known.items,
        item_indices=items[rows],
        scores=scores[rows],
        ranks=rows,
        best_score=float(scores[0]) if len(scores) else 0.0,
        history=user.history,
    )
    shown = known.popular[~np.isin(known.popular, hidden)][:SHOWN]
    hits = np.zeros(SHOWN, np.bool_)
    hits[: len(shown)] = np.isin(shown, wanted_items)
    return {
        "user_index": user.user_index,
        "n_wanted": len(wanted_items),
        "features": matrix.astype("<f4", copy=False).tobytes(),
        "grades": grades[rows].tobytes(),
        "ranks": rows.astype("<i4").tobytes(),
        "popular_hits": hits.tobytes(),
    }


def _kept(grades: NDArray[np.uint8], sampling: Sampling, *, user_index: int) -> NDArray[np.int64]:
    """The positions to keep, rising: every taken one, and others drawn evenly, so that no position is favoured."""
    others = np.flatnonzero(grades == 0)
    if sampling.negatives is None or len(others) <= sampling.negatives:
        return np.arange(len(grades))
    rng = np.random.default_rng((sampling.seed, user_index))
    drawn = rng.choice(others, sampling.negatives, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(grades), drawn]))


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
        ranks=whole("ranks", "<i4").astype(np.int32, copy=False),
        popular_hits=whole("popular_hits", "?").astype(np.bool_, copy=False).reshape(n, SHOWN),
    )
