"""What is loaded of a snapshot, and what is refused: other definitions, other bytes, a ranker for other features."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xgboost

from bentos.ranking.content import RankingSnapshot, load_content
from bentos.ranking.pinned_labels import labels_of
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.snapshots import Manifest
from infra.nearline.boards import Board
from infra.snapshots import tables
from infra.snapshots.versions import Version
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import build_tiny_snapshot
from tests.unit.bentos.ranking.asking import pinned


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Version, Manifest]:
    version = build_tiny_snapshot(str(tmp_path))
    return version, version.manifest()


def test_backfill_names_every_item_once_the_popular_ones_first(snapshot: RankingSnapshot) -> None:
    content = snapshot.content
    assert sorted(content.backfill.tolist()) == list(range(300))
    assert content.backfill[: len(content.popular)].tolist() == content.popular.tolist()


def test_users_to_try_are_spread_from_long_histories_to_short_ones(snapshot: RankingSnapshot) -> None:
    lengths = [user.history_length for user in snapshot.content.sample_users]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 20
    assert len({user.user_id for user in snapshot.content.sample_users}) == len(lengths) == 120


def test_another_definition_of_the_features_is_refused(sealed: tuple[Version, Manifest]) -> None:
    version, manifest = sealed
    with pytest.raises(SnapshotCorrupt, match="built with feature definition 0000, this service has"):
        load_content(version, replace(manifest, definition_hash="0000"))


def test_what_is_not_served_any_more_goes_though_collections_no_longer_see_it(stage: Stage) -> None:
    """Of three loads, each frozen as the service does, and each used with boards that change items."""
    gone: list[weakref.ref[object]] = []
    for _ in range(3):
        content = pinned(stage).content
        boards = [Board(standing={"changed_genres": {"i1": f"G{turn}"}}) for turn in range(2)]
        assert [content.shelf.place(board).face(1) >= 300 for board in boards] == [True, True]
        labels_of(content)
        gone += [weakref.ref(part) for part in (content.items.columns.features, content.ranker, content.shelf)]
        del content, boards
    assert [one() for one in gone] == [None] * 9


def test_only_what_is_served_is_frozen(sealed: tuple[Version, Manifest], stage: Stage) -> None:
    before = gc.get_freeze_count()
    load_content(*sealed)
    assert gc.get_freeze_count() <= before, "fewer where some of them went"
    snapshot = pinned(stage)
    assert gc.get_freeze_count() > before and snapshot.content.n_items == 300


@pytest.mark.parametrize("part", [tables.ITEM_TABLE, tables.POPULAR, tables.RANKER])
def test_a_changed_byte_in_a_part_is_refused(part: str, sealed: tuple[Version, Manifest], tmp_path: Path) -> None:
    version, manifest = sealed
    (name,) = manifest.parts[part].files
    (path,) = tmp_path.rglob(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    with pytest.raises(SnapshotCorrupt, match="its manifest promises"):
        load_content(version, manifest)


def test_a_missing_file_is_named(sealed: tuple[Version, Manifest], tmp_path: Path) -> None:
    version, manifest = sealed
    (name,) = manifest.parts[tables.RANKER].files
    next(tmp_path.rglob(name)).unlink()
    with pytest.raises(SnapshotCorrupt, match=r"ranker\.ubj of part ranker is missing"):
        load_content(version, manifest)


def _with_ranker(version: Version, manifest: Manifest, model: bytes) -> Manifest:
    version.storage.write("other/ranker.ubj", model)
    return replace(manifest, parts={**manifest.parts, tables.RANKER: version.part("other/ranker.ubj", rows=1)})


def test_a_file_that_is_no_model_is_refused(sealed: tuple[Version, Manifest]) -> None:
    version, manifest = sealed
    with pytest.raises(SnapshotCorrupt, match="the ranker cannot be read"):
        load_content(version, _with_ranker(version, manifest, b"no model"))


@pytest.mark.parametrize("names", [RANKER_FEATURES[:-1], tuple(reversed(RANKER_FEATURES))])
def test_a_ranker_of_other_features_is_refused(names: tuple[str, ...], sealed: tuple[Version, Manifest]) -> None:
    version, manifest = sealed
    rng = np.random.default_rng(0)
    data = xgboost.DMatrix(rng.random((20, len(names))), label=rng.random(20), feature_names=list(names))
    model = bytes(xgboost.train({"nthread": 1}, data, 2).save_raw("ubj"))
    with pytest.raises(SnapshotCorrupt, match="the ranker takes"):
        load_content(version, _with_ranker(version, manifest, model))
