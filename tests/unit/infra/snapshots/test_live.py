"""The service's side of the alias: what is followed, what is not, and what is said about it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.ids import VersionName, alias_value
from infra.contracts.snapshots import Alias, FlipKind, Manifest, State, Target
from infra.snapshots import keys, live
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.redis_server import RedisProcess, free_port, new_redis
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, tiny_world
from tests.unit.infra.snapshots.scenes import label, served


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sealed versions."""
    root = tmp_path_factory.mktemp("store")
    for _ in range(3):
        build_tiny_snapshot(str(root), world=tiny_world(users=4, items=40), k=5)
    return root


@pytest.fixture
def stage(server: RedisProcess, root: Path) -> Iterator[Stage]:
    stage = Stage(root, server.url)
    yield stage
    stage.client.flushall()


@pytest_asyncio.fixture
async def watched(stage: Stage) -> AsyncIterator[LiveSnapshots[str]]:
    """Not started: a test looks when it wants to."""
    client = serving_client(stage.redis_url, timeout_s=1.0)
    yield LiveSnapshots(client, stage.promotion.store, label)
    await client.aclose()


def flip(stage: Stage, version: str, *, digest: str = "") -> Alias:
    """Point the alias at a version, whatever its state."""
    store = stage.promotion.alias
    seen = store.read()
    name = VersionName(version)
    digest = digest or stage.promotion.store.get(name).manifest().digest
    generation = seen.generation + 1 if seen else 1
    return store.move(Alias(name, generation, digest, datetime.now(UTC), "test", "test"), seen=seen)


def write_alias(stage: Stage, alias: Alias) -> None:
    """As a Redis with another memory has it."""
    fields = {
        "version": alias_value(alias.version),
        "generation": str(alias.generation),
        "digest": alias.digest,
        "flipped_at": alias.flipped_at.isoformat(),
        "actor": alias.actor,
        "reason": alias.reason,
    }
    stage.client.hset(keys.alias(RANKING), items=[part for pair in fields.items() for part in pair])


async def test_before_the_first_flip_nothing_is_served_and_it_says_so(watched: LiveSnapshots[str]) -> None:
    await watched.check()
    assert (served(watched), watched.problem) == ("nothing", "no version is live yet")
    assert watched.mend == "Run: make snapshot"


async def test_a_flip_and_a_rollback_are_followed(stage: Stage, watched: LiveSnapshots[str]) -> None:
    for version in ("v1", "v2", "v1"):
        alias = flip(stage, version)
        await watched.check()
        assert (served(watched), watched.problem) == (f"content of {version}", "")
        assert watched.current is not None
        assert watched.current.alias.generation == alias.generation


async def test_an_unchanged_alias_is_not_loaded_again(stage: Stage) -> None:
    loads: list[str] = []

    def load(version: Version, manifest: Manifest) -> str:
        loads.append(manifest.version)
        return ""

    client = serving_client(stage.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, stage.promotion.store, load)
    flip(stage, "v1")
    for _ in range(5):
        await watched.check()
    assert loads == ["v1"]
    await client.aclose()


@pytest.mark.parametrize("digest", ["", "0" * 64], ids=["missing on the store", "of another build"])
async def test_a_version_that_cannot_be_served_leaves_the_one_before(
    digest: str, stage: Stage, watched: LiveSnapshots[str]
) -> None:
    flip(stage, "v1")
    await watched.check()
    flip(stage, "v2" if digest else "v77", digest=digest or "1" * 64)
    await watched.check()
    assert served(watched) == "content of v1"
    assert ("the alias names 000000" if digest else "SnapshotNotFound") in watched.problem
    flip(stage, "v3")
    await watched.check()
    assert (served(watched), watched.problem) == ("content of v3", "")


async def test_a_load_that_fails_is_told_and_tried_again_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [True]
    loads: list[str] = []

    def load(version: Version, manifest: Manifest) -> str:
        loads.append(manifest.version)
        if broken[0]:
            raise SnapshotCorrupt("a byte fell over")
        return "whole"

    client = serving_client(stage.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, stage.promotion.store, load)
    flip(stage, "v1")
    for _ in range(3):
        await watched.check()
    assert (served(watched), loads) == ("nothing", ["v1"])
    assert "v1 cannot be served: SnapshotCorrupt: a byte fell over" in watched.problem
    broken[0] = False
    monkeypatch.setattr(live, "RETRY_S", 0.0)
    await watched.check()
    assert (served(watched), watched.problem) == ("whole", "")
    await client.aclose()


async def test_an_error_that_is_none_of_ours_is_told_too(stage: Stage) -> None:
    def load(version: Version, manifest: Manifest) -> str:
        raise ZeroDivisionError("surprise")

    client = serving_client(stage.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, stage.promotion.store, load)
    flip(stage, "v1")
    await watched.check()
    assert "ZeroDivisionError: surprise" in watched.problem
    await client.aclose()


async def test_an_emptied_redis_changes_nothing_and_tells_the_mend(stage: Stage, watched: LiveSnapshots[str]) -> None:
    flip(stage, "v1")
    flip(stage, "v2")
    await watched.check()
    stage.client.flushall()
    await watched.check()
    assert served(watched) == "content of v2"
    assert "the alias is gone from Redis" in watched.problem
    assert "Run: python -m infra.snapshots reload" in watched.problem


async def test_a_redis_with_an_older_memory_does_not_turn_the_service_back(
    stage: Stage, watched: LiveSnapshots[str]
) -> None:
    older = flip(stage, "v1")
    flip(stage, "v2")
    await watched.check()
    write_alias(stage, older)
    await watched.check()
    assert served(watched) == "content of v2"
    assert "Redis came back with an older memory" in watched.problem


async def test_a_lower_generation_is_never_followed_however_late_it_was_flipped(
    stage: Stage, watched: LiveSnapshots[str]
) -> None:
    for version in ("v1", "v2", "v3"):
        flip(stage, version)
    await watched.check()
    stage.client.flushall()
    for version in ("v1", "v2"):
        assert flip(stage, version).generation < 3
        await watched.check()
        assert served(watched) == "content of v3"
        assert "Redis came back with an older memory" in watched.problem
    assert flip(stage, "v1").generation == 3, "no second flip of one generation either"
    await watched.check()
    assert served(watched) == "content of v3"
    flip(stage, "v1")
    await watched.check()
    assert (served(watched), watched.problem) == ("content of v1", "")


async def test_a_higher_generation_of_the_same_bytes_is_taken_without_loading_them_again(
    stage: Stage, watched: LiveSnapshots[str]
) -> None:
    flip(stage, "v1")
    await watched.check()
    before = watched.current
    flip(stage, "v1")
    await watched.check()
    assert before is not None and watched.current is not None
    assert watched.current.alias.generation == 2
    assert watched.current.content is before.content


async def test_a_later_generation_wins_whatever_the_clock_of_the_one_who_flipped(
    stage: Stage, watched: LiveSnapshots[str]
) -> None:
    flip(stage, "v1")
    await watched.check()
    second = flip(stage, "v2")
    write_alias(stage, replace(second, flipped_at=second.flipped_at - timedelta(days=1)))
    await watched.check()
    assert served(watched) == "content of v2"


async def test_while_redis_is_away_the_snapshot_is_served_on_and_it_says_so(root: Path) -> None:
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)
    watched: LiveSnapshots[str] = LiveSnapshots(client, SnapshotStore(str(root), RANKING), label)
    await watched.check()
    assert served(watched) == "nothing"
    assert watched.problem.startswith("Redis does not answer (ConnectionError")
    assert watched.mend == "Run: make up"
    await client.aclose()


@pytest.fixture
def journalled(root: Path, redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """v1 and v2 went live as an operator does it."""
    shutil.copytree(root, tmp_path / "store")
    stage = Stage(tmp_path / "store", redis_url)
    stage.client.flushall()
    for name in ("v1", "v2"):
        version = stage.promotion.store.get(name)
        version.record(State.VALIDATED, actor="gate", reason="test")
        stage.promotion.load(version, limit_fraction=1.0)
        stage.promotion.flip(version, actor="t", reason="r", force=True)
    yield stage
    stage.client.flushall()


async def test_started_beside_an_empty_redis_it_begins_with_what_the_journal_says(journalled: Stage) -> None:
    journalled.client.flushall()
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, label)
    await watched.check()
    assert served(watched) == "content of v2"
    await watched.check()
    assert "the alias is gone from Redis; v2 is served on. Run: python -m infra.snapshots reload" in watched.problem
    await asyncio.to_thread(journalled.promotion.reload, limit_fraction=1.0)
    await watched.check()
    assert (served(watched), watched.problem) == ("content of v2", "")
    await client.aclose()


async def test_started_beside_an_older_redis_it_does_not_act_on_the_lower_generation(journalled: Stage) -> None:
    newest = journalled.promotion.alias.read()
    assert newest is not None
    first = journalled.promotion.store.get("v1").manifest()
    write_alias(journalled, replace(newest, version=first.version, digest=first.digest, generation=1))
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, label)
    await watched.check()
    await watched.check()
    assert served(watched) == "content of v2"
    assert "Redis came back with an older memory" in watched.problem
    await client.aclose()


async def test_started_between_the_two_steps_of_a_flip_it_begins_with_what_the_alias_says(journalled: Stage) -> None:
    version = journalled.promotion.store.get("v3")
    version.record(State.VALIDATED, actor="gate", reason="test")
    moves = journalled.promotion.flips
    standing = moves.look()
    path = (*standing.path, Target(version.version, version.manifest().digest))
    moves.intend(standing, path, kind=FlipKind.FLIP, actor="t", reason="r")
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, label)
    await watched.check()
    await watched.check()
    assert (served(watched), watched.problem) == ("content of v2", "")
    await client.aclose()


async def test_started_while_redis_is_away_it_begins_with_what_the_journal_says(journalled: Stage) -> None:
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)
    watched = LiveSnapshots(client, journalled.promotion.store, label)
    await watched.check()
    assert served(watched) == "content of v2"
    assert watched.problem.startswith("Redis does not answer")
    await client.aclose()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def test_started_it_follows_the_announcement_without_waiting_for_the_poll(
    stage: Stage, watched: LiveSnapshots[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_S", 3600.0)
    await watched.start()
    await _until(lambda: stage.client.pubsub_numsub(keys.alias_channel(RANKING))[0][1] == 1)
    flip(stage, "v1")
    await _until(lambda: served(watched) == "content of v1")
    flip(stage, "v2")
    await _until(lambda: served(watched) == "content of v2")
    await watched.stop()


async def test_started_it_finds_a_flip_that_was_never_announced(stage: Stage, watched: LiveSnapshots[str]) -> None:
    first = flip(stage, "v1")
    await watched.start()
    await _until(lambda: served(watched) == "content of v1")
    second = stage.promotion.store.get(VersionName("v2")).manifest()
    write_alias(stage, replace(first, version=second.version, digest=second.digest, generation=2))
    await _until(lambda: served(watched) == "content of v2")
    await watched.stop()


async def test_an_alias_that_nobody_here_wrote_is_told_and_the_watch_goes_on(
    stage: Stage, watched: LiveSnapshots[str]
) -> None:
    stage.client.hset(keys.alias(RANKING), mapping={"version": "latest"})
    await watched.start()
    await _until(lambda: "the alias cannot be read" in watched.problem)
    stage.client.set(keys.alias(RANKING), "a string")
    await _until(lambda: "WRONGTYPE" in watched.problem)
    stage.client.delete(keys.alias(RANKING))
    flip(stage, "v1")
    await _until(lambda: (served(watched), watched.problem) == ("content of v1", ""))
    await watched.stop()


async def test_killed_and_started_again_redis_is_found_again(root: Path, own_redis: RedisProcess) -> None:
    stage = Stage(root, own_redis.url)
    client = serving_client(own_redis.url, timeout_s=1.0)
    watched: LiveSnapshots[str] = LiveSnapshots(client, stage.promotion.store, label)
    flip(stage, "v1")
    await watched.start()
    await _until(lambda: served(watched) == "content of v1")
    own_redis.kill()
    await _until(lambda: "Redis does not answer" in watched.problem)
    assert served(watched) == "content of v1"
    own_redis.start()
    await _until(lambda: watched.problem == "")
    flip(stage, "v2")
    await _until(lambda: served(watched) == "content of v2")
    await watched.stop()
    await client.aclose()
