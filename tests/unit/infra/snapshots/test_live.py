"""The service's side of the alias: what is followed, what is not, and what is said about it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.exposures import Arm
from infra.contracts.ids import VersionName, alias_value
from infra.contracts.snapshots import Alias, FlipKind, Manifest, State, Target
from infra.snapshots import keys, live
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.redis_server import RedisProcess, free_port, new_redis
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, tiny_world

Watched = LiveSnapshots[str]


def _label(version: Version, manifest: Manifest) -> str:
    return f"content of {manifest.version}"


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
    yield LiveSnapshots(client, stage.promotion.store, _label)
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


def served(watched: LiveSnapshots[str]) -> str:
    return watched.current.content if watched.current else "nothing"


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
    watched: LiveSnapshots[str] = LiveSnapshots(client, SnapshotStore(str(root), RANKING), _label)
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
    watched = LiveSnapshots(client, journalled.promotion.store, _label)
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
    watched = LiveSnapshots(client, journalled.promotion.store, _label)
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
    watched = LiveSnapshots(client, journalled.promotion.store, _label)
    await watched.check()
    await watched.check()
    assert (served(watched), watched.problem) == ("content of v2", "")
    await client.aclose()


async def test_started_while_redis_is_away_it_begins_with_what_the_journal_says(journalled: Stage) -> None:
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)
    watched = LiveSnapshots(client, journalled.promotion.store, _label)
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
    watched: LiveSnapshots[str] = LiveSnapshots(client, stage.promotion.store, _label)
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


# -- a canary beside it


@pytest_asyncio.fixture
async def watched_of_journalled(journalled: Stage) -> AsyncIterator[Watched]:
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched: Watched = LiveSnapshots(client, journalled.promotion.store, _label)
    yield watched
    await watched.stop()
    await client.aclose()


async def loaded_canary(watched: LiveSnapshots[str]) -> str:
    """The canary's content, after the look that began its load and the one that took it."""
    async with asyncio.timeout(10):
        await watched.check()
        while watched.canary is None:
            await asyncio.sleep(0.005)
            await watched.check()
    return watched.canary.content


def try_beside(stage: Stage, name: str, *, fraction: float = 0.5, mode: CanaryMode = CanaryMode.CANARY) -> None:
    version = stage.promotion.store.get(name)
    if version.state() is State.STAGED:
        version.record(State.VALIDATED, actor="gate", reason="test")
    stage.promotion.load(version, limit_fraction=1.0)
    stage.promotion.start_canary(version, fraction, mode, actor="t", reason="r", force=True)


async def test_each_user_gets_the_one_that_the_bucket_says(journalled: Stage, watched_of_journalled: Watched) -> None:
    watched = watched_of_journalled
    try_beside(journalled, "v3")
    assert await loaded_canary(watched) == "content of v3"
    assert served(watched) == "content of v2"
    canary = watched.current.alias.canary if watched.current else None
    assert canary is not None and (watched.problem, watched.canary_problem) == ("", "")
    arms = {}
    for user in map(str, range(100)):
        assigned = watched.assign(user)
        assert assigned is not None
        assert (assigned.arm, assigned.shown.content) == (
            (Arm.CANARY, "content of v3") if canary.takes(user) else (Arm.LIVE, "content of v2")
        )
        assert assigned.shown.alias.generation == 3
        arms[assigned.arm] = True
    assert len(arms) == 2


async def test_a_shadow_is_shown_to_nobody(journalled: Stage, watched_of_journalled: Watched) -> None:
    try_beside(journalled, "v3", fraction=1.0, mode=CanaryMode.SHADOW)
    await loaded_canary(watched_of_journalled)
    assigned = watched_of_journalled.assign("u1")
    assert assigned is not None and assigned.shadow is not None
    assert (assigned.arm, assigned.shown.content, assigned.shadow.content) == (
        Arm.LIVE,
        "content of v2",
        "content of v3",
    )


async def test_a_canary_that_passed_goes_live_without_being_read_again(
    journalled: Stage, watched_of_journalled: Watched
) -> None:
    watched = watched_of_journalled
    try_beside(journalled, "v3")
    await loaded_canary(watched)
    beside = watched.canary
    version = journalled.promotion.store.get("v3")
    journalled.promotion.flip(version, actor="canary", reason="it passed")
    await watched.check()
    assert beside is not None and watched.current is not None
    assert watched.current.content is beside.content
    assert (watched.canary, watched.canary_problem) == (None, "")


async def test_what_was_live_and_becomes_the_canary_is_not_read_again(
    journalled: Stage, watched_of_journalled: Watched
) -> None:
    watched = watched_of_journalled
    await watched.check()
    before = watched.current
    journalled.promotion.rollback(None, actor="t", reason="r", limit_fraction=1.0)
    try_beside(journalled, "v2")
    await watched.check()
    assert before is not None and watched.canary is not None
    assert watched.canary.content is before.content
    assert served(watched) == "content of v1"


async def test_a_canary_that_cannot_be_loaded_leaves_its_users_the_live_one_and_is_told(
    journalled: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(version: Version, manifest: Manifest) -> str:
        if manifest.version == "v3":
            raise SnapshotCorrupt("a byte fell over")
        return manifest.version

    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, load)
    try_beside(journalled, "v3", fraction=0.5)
    async with asyncio.timeout(10):
        while "a byte fell over" not in watched.canary_problem:
            await watched.check()
            await asyncio.sleep(0.005)
    assert (served(watched), watched.problem, watched.canary) == ("v2", "", None)
    canary = watched.current.alias.canary if watched.current else None
    assert canary is not None
    user = next(user for user in map(str, range(100)) if canary.takes(user))
    assigned = watched.assign(user)
    assert assigned is not None and (assigned.arm, assigned.shown.content) == (Arm.CANARY, "v2")
    await client.aclose()


async def test_while_a_canary_loads_a_rollback_is_followed(journalled: Stage) -> None:
    go_on = threading.Event()

    def load(version: Version, manifest: Manifest) -> str:
        if manifest.version == "v3":
            assert go_on.wait(20)
        return manifest.version

    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, load)
    try_beside(journalled, "v3")
    await watched.check()
    assert (watched.canary, watched.canary_problem) == (None, "v3 is being loaded")
    journalled.promotion.rollback(None, actor="t", reason="r", limit_fraction=1.0)
    await watched.check()
    assert (served(watched), watched.canary_problem) == ("v1", "")
    go_on.set()
    await watched.stop()
    await watched.check()
    assert watched.canary is None, "what was ended while it was loading is not served"
    await client.aclose()


async def test_a_canary_is_leased_while_it_is_named_and_while_it_is_served(
    journalled: Stage, watched_of_journalled: Watched
) -> None:
    watched = watched_of_journalled
    try_beside(journalled, "v3")
    await loaded_canary(watched)
    await watched.check()
    assert set(journalled.promotion.leases.readers()) == {"v2", "v3"}
    journalled.promotion.end_canary(VersionName("v3"), actor="t", reason="r", refused=True)
    assert journalled.promotion.leases.claim(VersionName("v3")) is False, "a request may still be reading it"


async def test_started_between_the_steps_of_a_canary_it_begins_with_what_redis_says(journalled: Stage) -> None:
    version = journalled.promotion.store.get("v3")
    version.record(State.VALIDATED, actor="gate", reason="test")
    moves = journalled.promotion.flips
    standing = moves.look()
    digest = version.manifest().digest
    canary = Canary(version.version, digest, 0.5, "salt", CanaryMode.CANARY, datetime.now(UTC), "t")
    moves.intend(standing, standing.path, kind=FlipKind.CANARY, actor="t", reason="r", canary=canary)
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, _label)
    await watched.check()
    assert watched.current is not None
    assert (served(watched), watched.current.alias.generation, watched.current.alias.canary) == (
        "content of v2",
        2,
        None,
    )
    await client.aclose()


async def test_started_beside_an_empty_redis_after_a_canary_that_was_pruned_it_begins_with_the_journal(
    journalled: Stage,
) -> None:
    try_beside(journalled, "v3")
    journalled.promotion.end_canary(VersionName("v3"), actor="t", reason="r", refused=False)
    journalled.promotion.store.remove(VersionName("v3"))
    journalled.client.flushall()
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, _label)
    await watched.check()
    assert served(watched) == "content of v2"
    await client.aclose()
