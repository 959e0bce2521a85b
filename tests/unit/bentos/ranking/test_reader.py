"""Reading users from a Redis that hangs: no round trip outlasts those who wait for it, and nobody waits behind it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import UserReader
from bentos.ranking.schema import RecommendRequest
from infra.contracts.errors import DependencyUnavailable
from infra.resilience.deadline import Deadline
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, tiny_world
from tests.unit.bentos.ranking.asking import pinned

_HANGING_S = 600.0
"""The client's own patience: no test would live to see it."""


@pytest.fixture
def hanging(own_redis: RedisProcess, tmp_path: Path) -> Stage:
    stage = Stage(tmp_path / "store", own_redis.url)
    stage.flip_live()
    return stage


@pytest_asyncio.fixture
async def reader(hanging: Stage) -> AsyncIterator[UserReader]:
    client = serving_client(hanging.redis_url, timeout_s=_HANGING_S)
    yield UserReader(client, RANKING)
    await client.aclose()


@contextmanager
def stopped(server: RedisProcess) -> Iterator[None]:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def asks(snapshot: RankingSnapshot, user: str, *, ms: float | None = None) -> RankingQuery:
    deadline = None if ms is None else Deadline.after_ms(ms)
    return RankingQuery.of(RecommendRequest(user_id=user), snapshot, deadline=deadline)


async def test_a_round_trip_ends_with_the_last_of_those_who_wait_for_it(
    hanging: Stage, reader: UserReader, own_redis: RedisProcess
) -> None:
    snapshot = pinned(hanging)
    await reader.read(asks(snapshot, "u1"))
    ended: list[str] = []

    async def ask(user: str, ms: float) -> None:
        with pytest.raises(DependencyUnavailable, match="Redis did not answer: TimeoutError"):
            await reader.read(asks(snapshot, user, ms=ms))
        ended.append(user)

    with stopped(own_redis):
        hung = [asyncio.create_task(ask(f"u{at}", 100)) for at in range(2)]
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(ask(f"u{at}", 50 * at)) for at in range(2, 8)]
        await asyncio.gather(*hung, *waiting)
        assert set(ended[:2]) == {"u0", "u1"} and set(ended[2:]) == {f"u{at}" for at in range(2, 8)}
    for at in range(8):
        query = asks(snapshot, f"u{at}")
        await reader.read(query)
        assert query.consumed.tolist() == tiny_world().histories[at][:20].tolist(), "a late reply goes to nobody else"


async def test_those_who_come_once_redis_is_back_wait_for_no_round_trip_that_hung(
    hanging: Stage, reader: UserReader, own_redis: RedisProcess
) -> None:
    """The connections of those are lost for good: their replies never come."""
    snapshot = pinned(hanging)
    with stopped(own_redis):
        hung = [asyncio.create_task(reader.read(asks(snapshot, f"u{at}", ms=200))) for at in range(2)]
        await asyncio.sleep(0)
        late = asyncio.create_task(reader.read(asks(snapshot, "u9")))
        assert all(
            isinstance(error, DependencyUnavailable) for error in await asyncio.gather(*hung, return_exceptions=True)
        )
        await asyncio.sleep(0)
        assert not late.done()
    await late
    async with asyncio.timeout(60):
        await reader.read(asks(snapshot, "u3", ms=50_000))


async def test_what_was_consumed_earlier_is_read_for_all_who_wait_by_one_command(
    hanging: Stage, reader: UserReader, own_redis: RedisProcess
) -> None:
    """Two round trips start at once, the third takes the others, users' records among them."""
    snapshot, client = pinned(hanging), hanging.client
    prefix = (snapshot.manifest.application, snapshot.alias.version)
    for at in range(9):
        client.set(keys.consumed(*prefix, f"u{at}"), np.array([at, at + 1], "<i4").tobytes())
    client.delete(keys.consumed(*prefix, "u9"))
    await reader.read(asks(snapshot, "u0"))
    client.config_resetstat()
    late = asks(snapshot, "u11")
    reading = [asyncio.create_task(reader.older(asks(snapshot, f"u{at}", ms=50_000))) for at in range(10)]
    await asyncio.create_task(reader.read(late))
    older = await asyncio.gather(*reading)
    assert [items.tolist() for items in older] == [*([at, at + 1] for at in range(9)), []]
    assert late.has_candidates
    assert client.info("commandstats")["cmdstat_mget"]["calls"] == 3


async def test_who_has_no_deadline_is_waited_for(hanging: Stage, reader: UserReader, own_redis: RedisProcess) -> None:
    snapshot = pinned(hanging)
    patient, hurried = asks(snapshot, "u1"), asks(snapshot, "u2", ms=20)
    with stopped(own_redis):
        tasks = [asyncio.create_task(reader.read(asks(snapshot, f"u{at}", ms=60))) for at in (3, 4)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(reader.read(query)) for query in (patient, hurried)]
        done, _ = await asyncio.wait(tasks[:2])
        assert all(isinstance(task.exception(), DependencyUnavailable) for task in done)
        await asyncio.sleep(0.05)
        assert not tasks[2].done() and not tasks[3].done(), "they went together, and one of them waits"
    await asyncio.gather(*tasks[2:])
    assert patient.has_candidates and hurried.has_candidates
