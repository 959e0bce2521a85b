"""Leases and claims: what is being read or worked with is not deleted, what is being deleted is not taken into use."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from infra.contracts.errors import SnapshotError, SnapshotNotLoaded
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Manifest, State
from infra.snapshots import keys, leases, live
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import Version
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, tiny_world

V1, V2 = VersionName("v1"), VersionName("v2")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sealed and validated versions; each test has a copy."""
    root = tmp_path_factory.mktemp("built")
    for number in range(4):
        version = build_tiny_snapshot(str(root), world=tiny_world(users=4, items=40), k=5, generation=number)
        version.record(State.VALIDATED, actor="gate", reason="test")
    return root


@pytest.fixture
def stage(built: Path, redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """All four were live, v4 is."""
    shutil.copytree(built, tmp_path / "store")
    stage = Stage(tmp_path / "store", redis_url)
    stage.client.flushall()
    for version in map(stage.promotion.store.get, stage.promotion.store.versions()):
        stage.promotion.load(version, limit_fraction=1.0)
        stage.promotion.flip(version, actor="t", reason="r")
    yield stage
    stage.client.config_set("maxmemory", 0)
    stage.client.flushall()


def served(version: Version, manifest: Manifest) -> str:
    return manifest.version


def back(stage: Stage, name: str) -> None:
    stage.promotion.rollback(VersionName(name), actor="t", reason="r", limit_fraction=1.0)


async def test_the_look_at_the_alias_leases_what_it_names_and_what_is_served(stage: Stage) -> None:
    client = serving_client(stage.redis_url, timeout_s=2.0)
    watched = LiveSnapshots(client, stage.promotion.store, served)
    assert watched.lease() == 0.0
    await watched.check()
    assert stage.promotion.leases.readers() == {"v4": 1}
    assert watched.lease() > 0.0
    await asyncio.to_thread(back, stage, "v1")
    await watched.check()
    assert stage.promotion.leases.readers() == {"v4": 1, "v1": 1}, "a request may still read what was served"
    await client.aclose()


async def test_what_a_reader_serves_is_not_collected(stage: Stage) -> None:
    client = serving_client(stage.redis_url, timeout_s=2.0)
    watched = LiveSnapshots(client, stage.promotion.store, served)
    await asyncio.to_thread(back, stage, "v1")
    await watched.check()
    for name in ("v2", "v3", "v4"):
        version = stage.promotion.store.get(name)
        await asyncio.to_thread(stage.promotion.flip, version, actor="t", reason="r", force=True)
    assert sorted(await asyncio.to_thread(stage.promotion.collect, keep=2)) == ["v2"]
    assert stage.promotion.loaded() == ["v1", "v3", "v4"]
    await client.aclose()


async def test_a_lease_lapses_by_the_clock_of_redis(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LEASE_S", 0.05)
    client = serving_client(stage.redis_url, timeout_s=2.0)
    watched = LiveSnapshots(client, stage.promotion.store, served)
    await watched.check()
    async with asyncio.timeout(20):
        while stage.promotion.leases.readers():
            await asyncio.sleep(0.01)
    assert watched.lease() == 0.0
    await client.aclose()


async def test_while_a_snapshot_is_being_read_leases_are_renewed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LEASE_S", 0.5)
    ends = threading.Event()

    def slowly(version: Version, manifest: Manifest) -> str:
        assert ends.wait(60)
        return manifest.version

    client = serving_client(stage.redis_url, timeout_s=2.0)
    watched = LiveSnapshots(client, stage.promotion.store, slowly)
    looking = asyncio.create_task(watched.check())
    first: float | None = None
    async with asyncio.timeout(30):
        while True:
            rows = stage.client.zrange(keys.leases(RANKING), 0, -1, withscores=True)
            lapses = [float(score) for _, score in cast("list[tuple[bytes, float]]", rows)]
            first = first or next(iter(lapses), None)
            if first is not None and lapses and lapses[0] > first:
                break
            await asyncio.sleep(0.01)
    ends.set()
    await looking
    assert watched.current is not None
    await client.aclose()


def test_what_is_being_deleted_is_not_taken_into_use_until_the_claim_ends(stage: Stage) -> None:
    assert stage.promotion.leases.claim(V1)
    with pytest.raises(SnapshotNotLoaded, match=r"v1 is being deleted .* Run it again in \d+ s\."):
        back(stage, "v1")
    stage.promotion.leases.release(V1)
    back(stage, "v1")


def test_what_is_live_or_held_cannot_be_claimed(stage: Stage) -> None:
    assert not stage.promotion.leases.claim(VersionName("v4"))
    with stage.promotion.leases.held(V2):
        assert not stage.promotion.leases.claim(V2)
        assert stage.promotion.leases.claim(V1)
    assert stage.promotion.leases.claim(V2)


def test_a_killed_garbage_collection_keeps_nobody_waiting_for_long(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_CLAIM_S", 0.05)
    assert stage.promotion.leases.claim(V1)
    ends = threading.Event()
    for _ in range(400):
        try:
            back(stage, "v1")
            break
        except SnapshotNotLoaded:
            ends.wait(0.05)
    alias = stage.promotion.alias.read()
    assert alias is not None and alias.version == "v1"


def test_a_deletion_whose_claim_was_lost_stops(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = iter([True, False])
    operator = stage.promotion
    monkeypatch.setattr(operator.leases, "claim", lambda name: next(claims))
    with pytest.raises(SnapshotError, match="v1 was taken into use while it was being deleted"):
        operator.collect(keep=3)


def test_with_memory_full_garbage_is_collected(stage: Stage) -> None:
    stage.client.config_set("maxmemory", 1)
    assert sorted(stage.promotion.collect(keep=2)) == ["v1", "v2"]


def test_after_a_rollback_what_was_left_is_garbage_and_what_waits_is_not(stage: Stage, tmp_path: Path) -> None:
    waiting = build_tiny_snapshot(str(stage.root), world=tiny_world(users=4, items=40), k=5, generation=4)
    waiting.record(State.VALIDATED, actor="gate", reason="test")
    stage.promotion.load(waiting, limit_fraction=1.0)
    back(stage, "v2")
    assert sorted(stage.promotion.collect(keep=2)) == ["v3", "v4"]
    assert stage.promotion.loaded() == ["v1", "v2", waiting.version]
