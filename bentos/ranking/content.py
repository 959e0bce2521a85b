"""content: what the service keeps in memory of one snapshot: catalogue, popular list, ranker; read from the store and checked."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xgboost

from infra.catalog.features.ranking import ITEM_FEATURES, RANKER_FEATURES, definition_hash
from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.snapshots import Manifest
from infra.snapshots.pinned import Pinned
from infra.snapshots.tables import (
    CANDIDATES,
    ITEM_TABLE,
    POPULAR,
    ItemTable,
    read_item_table,
    read_popular,
    verify_part,
)
from infra.snapshots.versions import Version

_POPULARITY = ITEM_FEATURES.index("item_popularity_log")
_SAMPLE_USERS = 200


@dataclass(frozen=True, slots=True)
class SampleUser:
    """A user for people to try."""

    user_id: str
    history_length: int


@dataclass(frozen=True, slots=True)
class RankingContent:
    """One snapshot's share of the memory.

    item_genres: each item's genres as numbers, all of them. popular: int32 [p] and float32 [p], best first.
    backfill: int32 [items], every item once: the popular list, then the rest by popularity.
    """

    items: ItemTable
    item_genres: list[tuple[int, ...]]
    popular: Int32s
    popular_scores: Float32s
    backfill: Int32s
    ranker: xgboost.Booster
    sample_users: tuple[SampleUser, ...]


RankingSnapshot = Pinned[RankingContent]


def load_content(version: Version, manifest: Manifest) -> RankingContent:
    """Read and verify; raises SnapshotCorrupt where bytes or definitions are not those that this service can serve."""
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
    content = RankingContent(
        items=items,
        item_genres=_numbered(items.genres),
        popular=popular,
        popular_scores=popular_scores,
        backfill=_backfill(items, popular),
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


def _numbered(genres: list[list[str]]) -> list[tuple[int, ...]]:
    numbers: dict[str, int] = {}
    return [tuple({numbers.setdefault(name, len(numbers)) for name in names}) for names in genres]


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
