"""What the store keeps: by time and by number, and whatever happens the live snapshot and the one before it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.contracts.errors import SnapshotNotFound
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import State
from infra.snapshots.retention import Kept, Pruned, prune
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, tiny_world

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=60)
MONTH = timedelta(days=30)


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """v1 to v4 went live one after the other; v5 was rejected."""
    stage = Stage(tmp_path / "store", redis_url)
    stage.client.flushall()
    for _ in range(4):
        stage.flip_live(world=tiny_world(users=4, items=40), k=5)
    rejected = build_tiny_snapshot(str(stage.root), world=tiny_world(users=4, items=40), k=5)
    rejected.record(State.REJECTED, actor="gate", reason="test")
    yield stage
    stage.client.flushall()


def test_what_is_young_stays_whatever_its_number(stage: Stage) -> None:
    stage.promotion.collect(keep=2)
    assert prune(stage.promotion, Kept(2, 1, MONTH), now=NOW) == Pruned([], 0)


def test_the_newest_stay_whatever_their_age(stage: Stage) -> None:
    stage.promotion.collect(keep=2)
    assert prune(stage.promotion, Kept(4, 3, MONTH), now=LATER) == Pruned([VersionName("v1")], 1)
    assert stage.promotion.store.versions() == ["v2", "v3", "v4", "v5"]
    with pytest.raises(SnapshotNotFound):
        stage.promotion.rollback(VersionName("v1"), actor="t", reason="r", limit_fraction=1.0)


def test_the_live_snapshot_the_one_before_it_and_what_is_in_redis_stay(stage: Stage) -> None:
    stage.promotion.rollback(VersionName("v2"), actor="t", reason="r", limit_fraction=1.0)
    stage.promotion.collect(keep=2)
    pruned = prune(stage.promotion, Kept(1, 1, MONTH), now=LATER)
    assert pruned.snapshots == ["v3", "v4"]
    assert stage.promotion.flips.look().applied
    assert stage.promotion.rollback(None, actor="t", reason="r", limit_fraction=1.0)[1].version == "v1"


def test_what_is_being_read_or_worked_with_stays(stage: Stage) -> None:
    stage.promotion.collect(keep=2)
    with stage.promotion.leases.held(VersionName("v1")):
        assert prune(stage.promotion, Kept(1, 1, MONTH), now=LATER).snapshots == ["v2"]


def test_a_deletion_that_was_interrupted_is_completed(stage: Stage) -> None:
    stage.promotion.collect(keep=2)
    stage.promotion.store.get("v1").storage.remove("manifest.json")
    assert prune(stage.promotion, Kept(3, 1, MONTH), now=LATER).snapshots == ["v1", "v2"]
    assert not (stage.root / "ranking/snapshots/v1").exists()


def test_the_empty_folder_of_a_killed_process_is_no_version(stage: Stage) -> None:
    (stage.root / "ranking/snapshots/v6").mkdir()
    assert stage.promotion.store.versions()[-1] == "v5"
    assert stage.promotion.open(actor="t").version == "v6"


def test_a_new_version_never_has_the_number_of_one_that_was_deleted(stage: Stage) -> None:
    stage.promotion.collect(keep=2)
    prune(stage.promotion, Kept(1, 1, MONTH), now=LATER)
    assert stage.promotion.open(actor="t").version == "v6"


def test_the_newest_flip_that_is_not_void_stays_in_the_journal(stage: Stage) -> None:
    journal = stage.promotion.flips.journal
    journal.void(4, actor="t", reason="test")
    assert journal.prune(keep=1, before=LATER) == 2
    tip = journal.tip()
    assert (tip.record and tip.record.generation, tip.highest) == (3, 4)
