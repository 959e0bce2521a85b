"""quality: how well ranked lists find what users took next, by the protocol of the published Gowalla tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from scipy import sparse

from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.metrics import ndcg_at_k, recall_at_k
from spark_jobs.candidates.retrieval import retrieve
from spark_jobs.embeddings.fit import Algorithm, fit

HEAD, DEPTH = 20, 1000
"""What a page shows, and what the online cascade ranks."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Who took what, without repeats and times. users, items: int32 [n], aligned."""

    users: Int32s
    items: Int32s
    n_users: int
    n_items: int

    @property
    def matrix(self) -> sparse.csr_matrix:
        """bool CSR [n_users, n_items]."""
        ones = np.ones(len(self.users), bool)
        return sparse.csr_matrix((ones, (self.users, self.items)), shape=(self.n_users, self.n_items))


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the users who took something later."""

    recall_at_20: float
    ndcg_at_20: float
    recall_at_1000: float


def judge(lists: Int32s, later: sparse.csr_matrix, users: Int32s) -> Quality:
    """lists: int32 [len(users), <= DEPTH] of item indices, best first, -1 where a list has ended; later: bool CSR of all users.

    Recall@k = hits / items taken later; NDCG's ideal has min(items taken later, k) hits. Users who took nothing do not count.
    """
    rows = []
    for row, user in enumerate(users.tolist()):
        taken = later.indices[later.indptr[user] : later.indptr[user + 1]]
        if len(taken):
            hits = np.isin(lists[row], taken)
            n = len(taken)
            recalls = (recall_at_k(hits, n_relevant=n, k=HEAD), recall_at_k(hits, n_relevant=n, k=DEPTH))
            rows.append((recalls[0], ndcg_at_k(hits, n_relevant=n, k=HEAD), recalls[1]))
    means = np.mean(rows, axis=0) if rows else np.zeros(3)
    return Quality(*(round(float(value), 4) for value in means))


def best_unseen(scores: Float32s, seen: sparse.csr_matrix) -> Int32s:
    """The DEPTH best columns of each row that the row has not seen, int32 [n, <= DEPTH], ties by index, -1 where there is no more.

    scores: float32 [n, n_items], -inf for what can not be; they are overwritten.
    """
    scores[seen.nonzero()] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    missing = np.isneginf(np.take_along_axis(scores, order, axis=1))
    return np.where(missing, -1, order).astype(np.int32)


def by_popularity(past: Pairs, users: Int32s) -> Int32s:
    """What most people took, ties by index, for everybody but for what they took themselves: int32 [len(users), <= DEPTH]."""
    seen = past.matrix
    order = np.argsort(-np.bincount(past.items, minlength=past.n_items), kind="stable").astype(np.int32)
    lists = np.full((len(users), DEPTH), -1, np.int32)
    for row, user in enumerate(users.tolist()):
        mine = seen.indices[seen.indptr[user] : seen.indptr[user + 1]]
        first = order[: DEPTH + len(mine)]
        new = first[~np.isin(first, mine)][:DEPTH]
        lists[row, : len(new)] = new
    return lists


def by_embedding(spark: SparkSession, past: Pairs, *, algorithm: Algorithm, dim: int, seed: int) -> Int32s:
    """The lists of the batch side itself, embedder and exact search: int32 [n_users, DEPTH]."""
    table = pa.table({"user_index": past.users, "item_index": past.items})
    pairs = spark.createDataFrame(table).repartition(8).persist()
    n_users, n_items = past.n_users, past.n_items
    embedding = fit(spark, pairs, n_users=n_users, n_items=n_items, algorithm=algorithm, dim=dim, seed=seed)
    frame, _ = retrieve(spark, embedding, pairs, k=DEPTH)
    found = frame.select("user_index", "item_indices").toArrow()
    lists = np.full((past.n_users, DEPTH), -1, np.int32)
    for user, packed in zip(found["user_index"].to_pylist(), found["item_indices"].to_pylist(), strict=True):
        items = np.frombuffer(packed, "<i4")
        lists[user, : len(items)] = items
    pairs.unpersist()
    return lists


def distinct(users: NDArray[np.integer], items: NDArray[np.integer], *, n_users: int, n_items: int) -> Pairs:
    """Pairs without repeats, by user and item. users, items: int [n], aligned."""
    keys = np.unique(users.astype(np.int64) * n_items + items)
    return Pairs((keys // n_items).astype(np.int32), (keys % n_items).astype(np.int32), n_users, n_items)


def without(later: Pairs, past: Pairs) -> Pairs:
    """What was taken later and had not been taken before."""
    old = past.users.astype(np.int64) * past.n_items + past.items
    new = later.users.astype(np.int64) * later.n_items + later.items
    keep = ~np.isin(new, old)
    return Pairs(later.users[keep], later.items[keep], later.n_users, later.n_items)
