"""A service that stands still for longer than its lease while its version is deleted: what was under way is answered anew."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio

from bentos.ranking.schema import RecommendReply
from infra.contracts.ids import VersionName
from infra.snapshots import keys
from infra.snapshots.leases import LEASE_S
from tests.fixtures.halves import USERS, half_world, halves_of
from tests.fixtures.redis_server import RedisProcess, new_redis
from tests.fixtures.service import Served, Stage, serving
from tests.fixtures.tiny_snapshot import RANKING

_CALLERS = 24

_HELD_UP_S = 0.04
"""Less than the budget of the stage that waits for Redis."""


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def served(server: RedisProcess, tmp_path: Path) -> Iterator[Served]:
    """On v1, whose lists are the even half."""
    stage = Stage(tmp_path / "store", server.url)
    stage.flip_live(world=half_world(0), k=40)
    with serving(stage, folder=tmp_path) as served:
        served.wait_ready()
        yield served


@pytest_asyncio.fixture
async def caller(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=_CALLERS)
    async with httpx.AsyncClient(base_url=served.url, timeout=60, limits=limits) as client:
        yield client


async def test_what_was_under_way_is_answered_anew_from_what_is_live(
    server: RedisProcess, served: Served, caller: httpx.AsyncClient
) -> None:
    answers: list[RecommendReply] = []
    going = True

    async def ask_on(first: int) -> None:
        user = first
        while going:
            user = (user + 7) % USERS
            try:
                answer = await caller.post("/recommend", json={"user_id": f"u{user}", "n": 100, "details": True})
            except httpx.ReadError:
                continue  # came to an idle connection, which the server closed for its age once it went on
            assert answer.status_code == 200, answer.text
            answers.append(RecommendReply.model_validate_json(answer.content))

    processes = [psutil.Process(served.pid), *psutil.Process(served.pid).children(recursive=True)]
    asking = [asyncio.create_task(ask_on(at)) for at in range(_CALLERS)]
    while len(answers) < 200:
        await asyncio.sleep(0.01)
    try:
        await asyncio.to_thread(_meanwhile, server, served.stage, processes)
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
    before, going = len(answers), False
    await asyncio.gather(*asking)
    for reply in answers:
        assert reply.snapshot in {"predictions_v1", "predictions_v3"}
        assert halves_of(reply) <= {0 if reply.snapshot == "predictions_v1" else 1}
    anew = [reply for reply in answers[before:] if reply.stage_ms["total"] > LEASE_S / 2 * 1000]
    assert anew, "some were under way when it was stopped"
    assert {reply.snapshot for reply in anew} == {"predictions_v3"}
    assert not any("SnapshotNotLoaded" in why for reply in anew for why in reply.skipped.values())


def _meanwhile(server: RedisProcess, stage: Stage, processes: list[psutil.Process]) -> None:
    """Stopped while requests wait for Redis; two more versions go live, the lease lapses, and the one it stands on is deleted."""
    redis = psutil.Process(server.process.pid if server.process else 0)
    redis.send_signal(signal.SIGSTOP)
    time.sleep(_HELD_UP_S)
    for process in reversed(processes):
        process.send_signal(signal.SIGSTOP)
    redis.send_signal(signal.SIGCONT)
    for _ in range(2):
        stage.flip_live(world=half_world(1), k=40)
    promotion = stage.promotion
    while "v1" not in promotion.collect(keep=2):
        time.sleep(0.2)
    assert not stage.client.exists(keys.load_marker(RANKING, VersionName("v1")))
