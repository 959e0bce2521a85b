"""What is done with a loaded snapshot before any request sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.pinned import Pinned
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage
from tests.unit.infra.snapshots.scenes import label, served


async def test_nobody_sees_a_snapshot_before_it_is_prepared(own_redis: RedisProcess, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "store", own_redis.url)
    stage.flip_live()
    prepared: list[str] = []
    go_on = asyncio.Event()

    async def prepare(pinned: Pinned[str]) -> None:
        prepared.append(pinned.content)
        await go_on.wait()

    client = serving_client(stage.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, stage.promotion.store, label, prepare=prepare)
    looking = asyncio.create_task(watched.check())
    while not prepared:
        await asyncio.sleep(0.01)
    assert served(watched) == "nothing"
    go_on.set()
    await looking
    assert served(watched) == "content of v1"
    stage.flip_live()
    go_on.clear()
    looking = asyncio.create_task(watched.check())
    while len(prepared) < 2:
        await asyncio.sleep(0.01)
    assert served(watched) == "content of v1"
    go_on.set()
    await looking
    assert (served(watched), prepared) == ("content of v2", ["content of v1", "content of v2"])
    await client.aclose()


async def test_leases_are_renewed_while_it_is_prepared(
    own_redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.snapshots.live.LEASE_S", 0.5)
    stage = Stage(tmp_path / "store", own_redis.url)
    stage.flip_live()
    client = serving_client(stage.redis_url, timeout_s=1.0)
    watched: LiveSnapshots[str]

    async def until_renewed_twice(pinned: Pinned[str]) -> None:
        leases: set[float] = set()
        while len(leases) < 3:
            leases.add(watched.lease())
            await asyncio.sleep(0.01)

    watched = LiveSnapshots(client, stage.promotion.store, label, prepare=until_renewed_twice)
    await watched.check()
    assert served(watched) == "content of v1"
    await client.aclose()


async def test_a_watch_that_ends_gives_up_what_is_being_prepared(own_redis: RedisProcess, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "store", own_redis.url)
    stage.flip_live()
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def prepare(pinned: Pinned[str]) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.set()
            raise

    client = serving_client(stage.redis_url, timeout_s=1.0)
    watched = LiveSnapshots(client, stage.promotion.store, label, prepare=prepare)
    await watched.start()
    await begun.wait()
    await watched.stop()
    async with asyncio.timeout(5):
        await given_up.wait()
    assert served(watched) == "nothing"
    await client.aclose()
