"""vectors: a snapshot's item vectors to search: users' vectors from a few items, and the items that match them; exact."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np

from infra.catalog.features.ranking import ITEM_FEATURES, ItemColumns
from infra.contracts.candidates import Float16s, Float32s, Int32s, ScoreMap
from infra.snapshots.tables import UserProjection

SEARCHED = 50_000
"""Items that a fresh user's search looks at, at most: the most popular ones. On one core, in 128 dimensions, 20,000 items take
0.2 ms and 50,000 1.1 ms, or 3 ms where other processes want the memory too; 200,000 would take 7 ms, or 18."""

TAKEN = 200
"""Fresh candidates of a request."""

_POPULARITY = ITEM_FEATURES.index("item_popularity_log")


def by_popularity(items: ItemColumns, popular: Int32s) -> Int32s:
    """int32 [items], every item once: the popular list, then the rest, most taken first."""
    popularity = items.features[:, _POPULARITY]
    order = np.lexsort((np.arange(len(popularity)), -popularity)).astype(np.int32)
    listed = np.zeros(len(popularity), np.bool_)
    listed[popular] = True
    return np.concatenate([popular, order[~listed[order]]])


class VectorSearch:
    """Users' vectors from a few items, and the items that match a vector best; exact, among those that it searches.

    FAISS computes each item's product by itself, in float32, so that equal vectors give equal results to the bit, whatever else
    the machine does; a matrix product of BLAS depends on its threads.
    """

    def __init__(self, vectors: Float32s, projection: UserProjection, *, order: Int32s, most: int = SEARCHED) -> None:
        """vectors: float32 [items, d]. order: int32 [items], best first, where more than `most` items have a direction."""
        self._vectors = vectors
        self._lengths = np.maximum(np.linalg.norm(vectors, axis=1), np.float32(1e-15))
        self._projection = projection
        directed = order[np.any(vectors[order] != 0, axis=1)]
        self.searched: Int32s = np.sort(directed[:most])
        self._index = faiss.IndexFlatIP(max(1, vectors.shape[1]))
        if len(self.searched):
            self._index.add(np.ascontiguousarray(vectors[self.searched]))

    def user(self, items: Sequence[int]) -> Float32s:
        """float32 [d]: see UserProjection.user."""
        return self._projection.user(items, self._vectors)

    def best(self, user: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """int32 [k] and float32 [k]: the items with the largest products, largest first; fewer where there are fewer."""
        products, rows = self._index.search(user[None], min(k, len(self.searched)))
        return self.searched[rows[0]], products[0]

    def alike(self, item: int) -> Float32s:
        """float32 [items]: the cosine of every item's vector with that one's; 0 where either has no direction."""
        cosines: Float32s = self._vectors @ self._vectors[item] / (self._lengths * self._lengths[item])
        return cosines

    def matches(self, items: Int32s, recent: Sequence[int], *, each: int = 1) -> Float32s:
        """float32 [n, 1 + each]: each item's product with the vector of a user who took the recent items (newest first) alone, then
        with that of one who took the newest alone, then the one before it; 0 where there are none, and for items newer than the
        snapshot."""
        out = np.zeros((len(items), 1 + each), np.float32)
        if not recent:
            return out
        known = items < len(self._vectors)
        rows = self._vectors[np.where(known, items, 0)]
        for column, taken in enumerate([recent, *([item] for item in recent[:each])]):
            np.einsum("nd,d->n", rows, self.user(taken), out=out[:, column])  # each row by itself, as FAISS does
        out[~known] = 0.0
        return out

    def fresh(self, recent: Sequence[int], *, hidden: Int32s, score_map: ScoreMap) -> tuple[Int32s, Float16s]:
        """int32 [<= TAKEN] and float16: the items nearest to a user who took the recent ones alone, without the hidden ones, with
        scores as they are stored, best first."""
        user = self.user(recent)
        if not np.any(user):
            return np.empty(0, np.int32), np.empty(0, np.float16)
        ids, products = self.best(user, TAKEN + len(hidden))
        kept = ~np.isin(ids, hidden)
        ordered, scores = score_map.ordered(ids[kept], products[kept])
        return ordered[:TAKEN], scores[:TAKEN]

    def nearest(self, items: Sequence[int], to: int) -> int:
        """Which of the items matches that one best, as a user who took it alone."""
        scale, rows = self._projection.scale, self._vectors[np.asarray(items)]
        users = np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)
        lengths = np.maximum(np.linalg.norm(users, axis=1), np.float32(1e-30))
        return items[int(np.argmax(users @ self._vectors[to] / lengths))]
