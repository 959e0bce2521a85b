"""content: what the service keeps in memory of one snapshot: catalogue, vectors, popular list, ranker; read and checked."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xgboost

from bentos.ranking.new_items import Shelf, no_board, with_spare_rows
from infra.catalog.features.ranking import ITEM_FEATURES, RANKER_FEATURES, definition_hash
from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.snapshots import Manifest
from infra.nearline.boards import Board
from infra.snapshots.pinned import Pinned
from infra.snapshots.tables import (
    CANDIDATES,
    ITEM_TABLE,
    ITEM_VECTORS,
    POPULAR,
    ItemTable,
    UserProjection,
    read_item_table,
    read_item_vectors,
    read_popular,
    verify_part,
)
from infra.snapshots.versions import Version

_log = logging.getLogger("headgate.content")

SEARCHED = 50_000
"""Items that a fresh user's search looks at, at most: the most popular ones. On one core, in 128 dimensions, 20,000 items take
0.2 ms and 50,000 1.1 ms, or 3 ms where other processes want the memory too; 200,000 would take 7 ms, or 18."""

_POPULARITY = ITEM_FEATURES.index("item_popularity_log")
_SAMPLE_USERS = 200


@dataclass(frozen=True, slots=True)
class SampleUser:
    """A user for people to try."""

    user_id: str
    history_length: int


class VectorSearch:
    """Users' vectors from a few items, and the items that match a vector best; exact, among those that it searches.

    FAISS computes each item's product by itself, in float32, so that equal vectors give equal results to the bit, whatever else
    the machine does; a matrix product of BLAS depends on its threads.
    """

    def __init__(self, vectors: Float32s, projection: UserProjection, *, order: Int32s, most: int = SEARCHED) -> None:
        """vectors: float32 [items, d]. order: int32 [items], best first, where more than `most` items have a direction."""
        self._vectors = vectors
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

    def nearest(self, items: Sequence[int], to: int) -> int:
        """Which of the items matches that one best, as a user who took it alone."""
        scale, rows = self._projection.scale, self._vectors[np.asarray(items)]
        users = np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)
        lengths = np.maximum(np.linalg.norm(users, axis=1), np.float32(1e-30))
        return items[int(np.argmax(users @ self._vectors[to] / lengths))]


@dataclass(frozen=True, slots=True)
class RankingContent:
    """One snapshot's share of the memory.

    items, item_genres: with spare rows behind the snapshot's own n_items, which `shelf` gives out. item_genres: each item's genres
    as numbers, all of them. popular: int32 [p] and float32 [p], best first. backfill: int32 [n_items], every item once: the
    popular list, then the rest by popularity. vectors: None where the snapshot was sealed without what makes a user's vector.
    """

    items: ItemTable
    n_items: int
    shelf: Shelf
    vectors: VectorSearch | None
    item_genres: list[tuple[int, ...]]
    popular: Int32s
    popular_scores: Float32s
    backfill: Int32s
    ranker: xgboost.Booster
    sample_users: tuple[SampleUser, ...]


RankingSnapshot = Pinned[RankingContent]


def load_content(version: Version, manifest: Manifest, *, boards: Callable[[], Board] = no_board) -> RankingContent:
    """Read and verify; raises SnapshotCorrupt where bytes or definitions are not those that this service can serve.

    boards: the newest board of the stream.
    """
    if manifest.definition_hash != definition_hash() or manifest.ranker.feature_order != RANKER_FEATURES:
        raise SnapshotCorrupt(
            f"{version.label} was built with feature definition {manifest.definition_hash}, this service has "
            f"{definition_hash()}.",
            mend="Build again with this code: make snapshot, or roll the service back.",
        )
    storage = version.storage
    items = read_item_table(storage, verify_part(version, manifest, ITEM_TABLE))
    lists = read_popular(storage, verify_part(version, manifest, POPULAR))
    model_files = verify_part(version, manifest, manifest.ranker.part)
    popular, popular_scores = lists.get("popular", (np.empty(0, np.int32), np.empty(0, np.float32)))
    if len(popular) and not 0 <= int(popular.min()) <= int(popular.max()) < len(items.item_ids):
        raise SnapshotCorrupt(f"{version.label}: the popular list names items that the item table has not.")
    backfill = _backfill(items, popular)
    vectors = _vectors(version, manifest, items, order=backfill)
    own, items = items, with_spare_rows(items)
    numbers: dict[str, int] = {}
    item_genres = [tuple({numbers.setdefault(name, len(numbers)) for name in names}) for names in items.genres]
    content = RankingContent(
        items=items,
        n_items=len(own.item_ids),
        shelf=Shelf(items, item_genres, numbers, boards),
        vectors=vectors,
        item_genres=item_genres,
        popular=popular,
        popular_scores=popular_scores,
        backfill=backfill,
        ranker=_ranker(storage.read(model_files[0]), version=version, manifest=manifest),
        sample_users=_sample_users(version, manifest),
    )
    gc.freeze()  # a collection that walks a catalogue stops requests for its whole length
    return content


def _ranker(model: bytes, *, version: Version, manifest: Manifest) -> xgboost.Booster:
    """The booster, with one native thread, checked to take the features that the manifest lists."""
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(model))
    except xgboost.core.XGBoostError as error:
        raise SnapshotCorrupt(
            f"{version.label}: the ranker cannot be read.", mend="Build again: make snapshot"
        ) from error
    booster.set_param({"nthread": 1})
    names = tuple(booster.feature_names or ())
    if booster.num_features() != len(RANKER_FEATURES) or (names and names != manifest.ranker.feature_order):
        raise SnapshotCorrupt(
            f"{version.label}: the ranker takes {booster.num_features()} features {names[:3]}...; "
            f"the manifest lists {len(RANKER_FEATURES)}."
        )
    booster.inplace_predict(np.zeros((2, len(RANKER_FEATURES)), np.float32), validate_features=False)
    return booster


def _vectors(version: Version, manifest: Manifest, items: ItemTable, *, order: Int32s) -> VectorSearch | None:
    """None, and said so, where the snapshot does not tell how item vectors make a user's."""
    found = read_item_vectors(version.storage, verify_part(version, manifest, ITEM_VECTORS))
    if found.projection is None:
        _log.warning("%s was sealed without user weights: no candidates from what a user just took.", version.label)
        return None
    if len(found.vectors) != len(items.item_ids):
        raise SnapshotCorrupt(f"{version.label} has {len(found.vectors)} item vectors for {len(items.item_ids)} items.")
    return VectorSearch(found.vectors, found.projection, order=order)


def _backfill(items: ItemTable, popular: Int32s) -> Int32s:
    popularity = items.columns.features[:, _POPULARITY]
    order = np.lexsort((np.arange(len(popularity)), -popularity)).astype(np.int32)
    listed = np.zeros(len(popularity), np.bool_)
    listed[popular] = True
    return np.concatenate([popular, order[~listed[order]]])


def _sample_users(version: Version, manifest: Manifest) -> tuple[SampleUser, ...]:
    """Users of the first row group of each candidates file: the longest and shortest histories and some between."""
    found: list[SampleUser] = []
    for name in sorted(manifest.parts[CANDIDATES].files)[:8]:
        with version.storage.open(name) as file:
            parquet = pq.ParquetFile(file)
            if parquet.num_row_groups:
                table = parquet.read_row_group(0, columns=["user_id", "history"])
                lengths = pc.divide(pc.binary_length(table["history"]), 4).to_pylist()
                pairs = zip(table["user_id"].to_pylist(), lengths, strict=True)
                found += [SampleUser(user_id, int(length)) for user_id, length in pairs]
    found.sort(key=lambda user: (-user.history_length, user.user_id))
    if len(found) > _SAMPLE_USERS:
        rows = np.unique(np.linspace(0, len(found) - 1, _SAMPLE_USERS).astype(int))
        found = [found[row] for row in rows]
    return tuple(found)
