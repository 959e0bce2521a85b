"""The running service while its surroundings fail: flips without end, a Redis that hangs, dies, forgets and comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
import pytest
import pytest_asyncio

from bentos.ranking.schema import RecommendReply
from infra.contracts.canaries import Canary, CanaryMode
from infra.snapshots import keys
from infra.snapshots.versions import Version
from tests.fixtures.halves import USERS, half_world, halves_of
from tests.fixtures.nearline import logged
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Served, Stage, serving
from tests.fixtures.tiny_snapshot import RANKING


@dataclass
class Scene:
    """A service, its Redis, and two versions whose lists of candidates share no item."""

    served: Served
    server: RedisProcess
    versions: list[Version]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "redis").mkdir()
    server = RedisProcess(folder / "redis", append_only=True)
    server.start()
    stage = Stage(folder / "store", server.url)
    versions = [stage.flip_live(world=half_world(half), k=40) for half in (0, 1)]
    with serving(stage, folder=folder) as served:
        served.wait_ready()
        yield Scene(served, server, versions)
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture
async def caller(scene: Scene) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=scene.served.url, timeout=20) as client:
        yield client


async def ask(caller: httpx.AsyncClient, user: int, *, n: int = 20) -> RecommendReply:
    answer = await caller.post("/recommend", json={"user_id": f"u{user}", "n": n})
    assert answer.status_code == 200, answer.text
    return RecommendReply.model_validate_json(answer.content)


def flip(scene: Scene, at: int) -> None:
    """Put one of the two versions live, as an operator does."""
    promotion = scene.served.stage.promotion
    promotion.flip(promotion.store.get(scene.versions[at].version), actor="test", reason="to and fro", force=True)


async def whole(caller: httpx.AsyncClient, user: int) -> RecommendReply:
    """An answer that is not degraded; on a busy machine a stage may overrun its budget, then it is asked for again."""
    async with asyncio.timeout(30):
        while (reply := await ask(caller, user)).degraded:
            await asyncio.sleep(0.01)
    return reply


async def settle(scene: Scene, caller: httpx.AsyncClient) -> None:
    """Until the service is whole again: live, without a problem, and not degraded."""
    async with asyncio.timeout(30):
        while True:
            status = (await caller.get("/status")).json()
            if status["ready"] and not status["problem"] and not (await ask(caller, 1)).degraded:
                return
            await asyncio.sleep(0.02)


async def test_under_continuous_flips_no_answer_mixes_two_snapshots(scene: Scene, caller: httpx.AsyncClient) -> None:
    await settle(scene, caller)
    going, flips = [True], [0]

    def flip_on() -> None:
        while going[0]:
            flips[0] += 1
            flip(scene, flips[0] % 2)

    async def requests(first: int) -> list[RecommendReply]:
        replies: list[RecommendReply] = []
        while len(replies) < sized(40, full=400) or (flips[0] <= 20 and not flipping.done()):
            replies.append(await ask(caller, (first + len(replies)) % USERS))
        return replies

    with ThreadPoolExecutor(1) as hand:
        flipping = hand.submit(flip_on)
        answers = [reply for some in await asyncio.gather(*(requests(at * 7) for at in range(8))) for reply in some]
        going[0] = False
        flipping.result()
    seen = Counter(reply.snapshot for reply in answers)
    assert set(seen) == {"predictions_v1", "predictions_v2"}, seen
    assert flips[0] > 20
    undegraded = [reply for reply in answers if not reply.degraded]
    assert {reply.snapshot for reply in undegraded} == set(seen)
    for reply in undegraded:
        assert halves_of(reply) == {0 if reply.snapshot == "predictions_v1" else 1}
    await settle(scene, caller)


async def test_a_flip_is_followed_by_the_running_service(scene: Scene, caller: httpx.AsyncClient) -> None:
    await settle(scene, caller)
    live = (await ask(caller, 1)).snapshot
    other = 1 if live == "predictions_v1" else 0
    await asyncio.to_thread(flip, scene, other)
    async with asyncio.timeout(20):
        while (await ask(caller, 1)).snapshot == live:
            await asyncio.sleep(0.01)
    assert halves_of(await whole(caller, 1)) == {other}


async def test_a_redis_that_hangs_costs_its_budget_and_no_late_reply_goes_to_another_user(
    scene: Scene, caller: httpx.AsyncClient
) -> None:
    await settle(scene, caller)
    before = [await whole(caller, user) for user in range(USERS)]
    pid = cast(int, scene.server.process.pid if scene.server.process else None)
    os.kill(pid, signal.SIGSTOP)
    try:
        hung = await asyncio.gather(*(ask(caller, user) for user in range(USERS)))
        assert all(reply.degraded and reply.decided_by == "popular" and len(reply.items) == 20 for reply in hung)
        events = await caller.post("/events", json={"user_id": "u1", "item_id": "i1", "event_type": "view"})
        assert (events.status_code, events.json()["error"]["type"]) == (503, "DependencyUnavailable")
    finally:
        os.kill(pid, signal.SIGCONT)
    await settle(scene, caller)
    for user in range(USERS):
        after = await whole(caller, user)
        assert [item.item_id for item in after.items] == [item.item_id for item in before[user].items]


async def test_a_canary_whose_copy_goes_missing_degrades_its_users_alone_and_ends_without_a_trace(
    scene: Scene, caller: httpx.AsyncClient
) -> None:
    await settle(scene, caller)
    promotion = scene.served.stage.promotion
    live = (await ask(caller, 1)).snapshot
    tried = scene.versions[1 if live == "predictions_v1" else 0]

    def begin() -> Canary | None:
        version = promotion.store.get(tried.version)
        return promotion.start_canary(version, 0.5, CanaryMode.CANARY, actor="test", reason="r", force=True).canary

    canary = await asyncio.to_thread(begin)
    assert canary is not None
    beside = f"predictions_{tried.version}"
    async with asyncio.timeout(20):
        while not ((await caller.get("/status")).json()["canary"] or {}).get("loaded_at"):
            await asyncio.sleep(0.02)
    client = scene.served.stage.client
    for user in range(USERS):
        assert (await whole(caller, user)).snapshot == (beside if canary.takes(f"u{user}") else live)
    await asyncio.to_thread(lambda: client.delete(*client.keys(keys.version_pattern(RANKING, tried.version))))
    for user in range(USERS):
        if canary.takes(f"u{user}"):
            reply = await ask(caller, user)
            assert (reply.snapshot, reply.degraded, reply.decided_by) == (beside, True, "popular")
            assert len(reply.items) == 20
        else:
            assert (await whole(caller, user)).snapshot == live
    await asyncio.to_thread(promotion.end_canary, tried.version, actor="test", reason="r", refused=False)
    async with asyncio.timeout(20):
        while (await caller.get("/status")).json()["canary"] is not None:
            await asyncio.sleep(0.02)
    assert {(await whole(caller, user)).snapshot for user in range(USERS)} == {live}
    await asyncio.to_thread(promotion.load, promotion.store.get(tried.version), limit_fraction=1.0)


async def test_redis_killed_under_load_gives_fallbacks_no_5xx_and_whole_answers_once_it_is_back(
    scene: Scene, caller: httpx.AsyncClient
) -> None:
    await settle(scene, caller)
    ended = [False]
    answers: list[RecommendReply] = []

    async def load(first: int) -> None:
        at = first
        while not ended[0]:
            at += 1
            answers.append(await ask(caller, at % USERS))

    async def trouble() -> None:
        scene.server.kill()
        async with asyncio.timeout(20):
            while sum(reply.degraded for reply in answers) < 50:
                await asyncio.sleep(0.01)
        events = await caller.post("/events", json={"user_id": "u1", "item_id": "i1", "event_type": "view"})
        assert (events.status_code, events.headers["retry-after"]) == (503, "1")
        assert (await caller.get("/readyz")).status_code == 200, "the popular list can be served: it stays ready"
        async with asyncio.timeout(20):
            while "Redis does not answer" not in (await caller.get("/status")).json()["problem"]:
                await asyncio.sleep(0.05)  # the alias is looked at five times a second
        await asyncio.to_thread(scene.server.start)
        await settle(scene, caller)
        ended[0] = True

    try:
        await asyncio.gather(*(load(at * 11) for at in range(6)), trouble())
    finally:
        if scene.server.process is None:
            scene.server.start()
    assert {len(reply.items) for reply in answers} == {20}
    assert not answers[-1].degraded
    assert {reply.decided_by for reply in answers if reply.degraded} == {"popular"}


async def test_every_event_that_was_acknowledged_is_in_the_log_after_a_kill(
    scene: Scene, caller: httpx.AsyncClient
) -> None:
    await settle(scene, caller)
    acknowledged: set[str] = set()

    async def send(producer: int) -> None:
        for number in range(400):
            name = f"p{producer}-{number}"
            event = {"user_id": "u1", "item_id": "i1", "event_type": "view", "event_id": name}
            answer = await caller.post("/events", json=event)
            if answer.status_code != 200:
                assert answer.status_code == 503
                return
            acknowledged.add(name)
            if len(acknowledged) == 60:
                scene.server.kill()

    await asyncio.gather(*(send(producer) for producer in range(4)))
    await asyncio.to_thread(scene.server.start)
    taken = [event.event_id for event in logged(scene.served.stage.client)]
    assert acknowledged <= set(taken)
    assert len(taken) == len(set(taken))
    await settle(scene, caller)


async def test_a_redis_that_forgot_everything_is_served_past_and_mended_by_a_reload(
    scene: Scene, caller: httpx.AsyncClient
) -> None:
    await settle(scene, caller)
    before = (await caller.get("/status")).json()
    live = before["live"]["snapshot"]
    await asyncio.to_thread(scene.served.stage.client.flushall)
    forgotten = await ask(caller, 1)
    assert (forgotten.snapshot, forgotten.degraded, len(forgotten.items)) == (live, True, 20)
    assert "is not in Redis" in forgotten.skipped["retrieval"]
    assert (await caller.get("/users/u1")).status_code == 503

    async with asyncio.timeout(20):
        while "the alias is gone from Redis" not in (told := (await caller.get("/readyz")).json())["note"]:
            await asyncio.sleep(0.02)  # the alias is looked at five times a second
    assert "Run: python -m infra.snapshots reload" in told["note"]
    await asyncio.to_thread(scene.served.stage.promotion.reload, limit_fraction=1.0)
    await settle(scene, caller)
    status = (await caller.get("/status")).json()
    assert (status["live"]["snapshot"], status["live"]["generation"]) == (live, before["live"]["generation"])
    await asyncio.to_thread(flip, scene, 1 if live == "predictions_v1" else 0)
    async with asyncio.timeout(20):
        while (status := (await caller.get("/status")).json())["live"]["snapshot"] == live:
            await asyncio.sleep(0.02)  # the alias is looked at five times a second
    assert status["live"]["generation"] == before["live"]["generation"] + 1, "it never counts anew"


def test_the_service_s_log_holds_no_trace_and_no_flood(scene: Scene) -> None:
    log = Path(scene.served.log).read_text()
    assert "Traceback" not in log, log[-3000:]
    assert len(log.splitlines()) < 1500
