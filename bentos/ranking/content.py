"""content: what the service keeps in memory of one snapshot: catalogue, vectors, popular list, ranker; read and checked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xgboost

from bentos.ranking.new_items import Shelf, no_board, with_spare_rows
from bentos.ranking.pinned_labels import labels_of
from infra.catalog.features.ranking import LIGHT_FEATURES, NETWORK_FEATURES, RANKER_FEATURES, definition_hash
from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.snapshots import Manifest, StageInfo
from infra.nearline.boards import Board
from infra.snapshots.network import Network
from infra.snapshots.pinned import Pinned
from infra.snapshots.tables import (
    CANDIDATES,
    ITEM_TABLE,
    ITEM_VECTORS,
    POPULAR,
    ItemTable,
    read_item_table,
    read_item_vectors,
    read_popular,
    verify_part,
)
from infra.snapshots.vectors import VectorSearch, by_popularity
from infra.snapshots.versions import Version

_log = logging.getLogger("headgate.content")

_SAMPLE_USERS = 200

LIGHT, NETWORK = "light", "network"
"""The scorers' names, in the cascade and in the manifest."""


@dataclass(frozen=True, slots=True)
class SampleUser:
    """A user for people to try."""

    user_id: str
    history_length: int


@dataclass(frozen=True, slots=True)
class RankingContent:
    """One snapshot's share of the memory.

    items, item_genres: with spare rows behind the snapshot's own n_items, which `shelf` gives out. item_genres: each item's genres
    as numbers, all of them. popular: int32 [p] and float32 [p], best first. backfill: int32 [n_items], every item once: the
    popular list, then the rest by popularity. vectors: None where the snapshot was sealed without what makes a user's vector.
    light: the weights of LIGHT_FEATURES, network: None where the snapshot has none. off: the scorers that did not earn their place.
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
    light: tuple[float, ...] | None
    network: Network | None
    off: frozenset[str]
    sample_users: tuple[SampleUser, ...]


RankingSnapshot = Pinned[RankingContent]


def load_content(version: Version, manifest: Manifest, *, boards: Callable[[], Board] = no_board) -> RankingContent:
    """Read and verify; raises SnapshotCorrupt where bytes or definitions are not those that this service can serve.

    boards: the newest board of the stream. Nothing here may be part of a cycle: see LiveSnapshots.read.
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
    backfill = by_popularity(items.columns, popular)
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
        light=_light(version, manifest),
        network=_network(version, manifest),
        off=frozenset(name for name, stage in manifest.stages.items() if not stage.on),
        sample_users=_sample_users(version, manifest),
    )
    content.shelf.current()  # here, in a thread: all that stands is new to it, and rules are asked for by names
    labels_of(content)
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


def _light(version: Version, manifest: Manifest) -> tuple[float, ...] | None:
    stage = manifest.stages.get(LIGHT)
    if stage is None:
        return None
    _check_inputs(version, LIGHT, stage, LIGHT_FEATURES)
    if len(stage.weights) != len(LIGHT_FEATURES) or not np.all(np.isfinite(stage.weights)):
        raise SnapshotCorrupt(f"{version.label}: the weights of {LIGHT} are {stage.weights}; wanted one an input.")
    return stage.weights


def _network(version: Version, manifest: Manifest) -> Network | None:
    stage = manifest.stages.get(NETWORK)
    if stage is None:
        return None
    _check_inputs(version, NETWORK, stage, NETWORK_FEATURES)
    (name,) = verify_part(version, manifest, stage.part)
    return Network(version.storage.read(name), inputs=len(NETWORK_FEATURES))


def _check_inputs(version: Version, name: str, stage: StageInfo, wanted: tuple[str, ...]) -> None:
    if stage.inputs != wanted:
        raise SnapshotCorrupt(
            f"{version.label}: {name} takes {stage.inputs}; this service has {wanted}.",
            mend="Build again with this code: make snapshot, or roll the service back.",
        )


def _vectors(version: Version, manifest: Manifest, items: ItemTable, *, order: Int32s) -> VectorSearch | None:
    """None, and said so, where the snapshot does not tell how item vectors make a user's."""
    found = read_item_vectors(version.storage, verify_part(version, manifest, ITEM_VECTORS))
    if found.projection is None:
        _log.warning("%s was sealed without user weights: no candidates from what a user just took.", version.label)
        return None
    if len(found.vectors) != len(items.item_ids):
        raise SnapshotCorrupt(f"{version.label} has {len(found.vectors)} item vectors for {len(items.item_ids)} items.")
    return VectorSearch(found.vectors, found.projection, order=order)


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
