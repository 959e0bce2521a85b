"""The service's side of a canary: who is shown which, what is loaded and leased, and what a canary must not hold up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.exposures import Arm
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import FlipKind, Manifest, State, Target
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import Version
from tests.fixtures.service import Stage
from tests.unit.infra.snapshots.scenes import go, label, served

Watched = LiveSnapshots[str]


@pytest.fixture
def journalled(stage: Stage) -> Stage:
    """v1 and v2 went live as an operator does it."""
    go(stage, "v1", "v2")
    return stage


@pytest_asyncio.fixture
async def watched_of_journalled(journalled: Stage) -> AsyncIterator[Watched]:
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched: Watched = LiveSnapshots(client, journalled.promotion.store, label)
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
    watched = LiveSnapshots(client, journalled.promotion.store, label)
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
    watched = LiveSnapshots(client, journalled.promotion.store, label)
    await watched.check()
    assert served(watched) == "content of v2"
    await client.aclose()


async def test_started_between_the_steps_of_a_canarys_promotion_it_begins_with_what_redis_says(
    journalled: Stage,
) -> None:
    try_beside(journalled, "v3")
    version = journalled.promotion.store.get("v3")
    moves = journalled.promotion.flips
    standing = moves.look()
    path = (*standing.path, Target(version.version, version.manifest().digest))
    moves.intend(standing, path, kind=FlipKind.FLIP, actor="canary", reason="it passed")
    client = serving_client(journalled.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, journalled.promotion.store, label)
    await watched.check()
    assert watched.current is not None
    assert (served(watched), watched.current.alias.generation) == ("content of v2", 3)
    await watched.stop()
    await client.aclose()
