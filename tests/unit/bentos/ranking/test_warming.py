"""A snapshot answers recorded requests before real ones; nothing of it is seen outside, and nothing stops it from being served."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import redis.asyncio

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.pipeline import ranking_cascade
from bentos.ranking.query import RankingQuery
from bentos.ranking.warming import FIRST, LATER, Warmer, made_up
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.eventlog.decisions import BEGINNING, RedisDecisionLog
from tests.fixtures.answers import town
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage
from tests.unit.bentos.ranking.asking import pinned


def warmer(client: redis.asyncio.Redis, log: RedisDecisionLog) -> tuple[Warmer, Cascade[RankingQuery]]:
    """As the service wires it, and the cascade that is served."""
    served = ranking_cascade(client, lane=None)
    return Warmer(ranking_cascade(client, lane=None), log, teaches=served.costs), served


async def test_recorded_requests_are_answered_and_leave_nothing_behind(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        for user in range(12):
            await place.ask(f"u{user}", n=5)
        before = await place.decisions.read(after=BEGINNING, count=99)
        made, served = warmer(place.client, place.decisions)
        warmed = await made.warm(pinned(place.stage))
        assert await place.decisions.read(after=BEGINNING, count=99) == before
    assert (warmed.requests, warmed.recorded) == (FIRST, 12)
    assert warmed.last_ms > 0
    assert served.costs["retrieval"].is_known
    assert served.costs["ranker"].is_known


async def test_without_recorded_requests_the_sample_users_are_asked_for(
    client: redis.asyncio.Redis, snapshot: RankingSnapshot
) -> None:
    made, _ = warmer(client, RedisDecisionLog(client, "no such log", kept=10))
    warmed = await made.warm(snapshot)
    assert (warmed.requests, warmed.recorded) == (FIRST, 0)
    requests = made_up(snapshot, 6)
    assert len({request.user_id for request in requests}) == 6
    assert [bool(request.context.recent_items) for request in requests] == [False, True] * 3


async def test_a_later_snapshot_is_warmed_by_fewer(client: redis.asyncio.Redis, snapshot: RankingSnapshot) -> None:
    made, _ = warmer(client, RedisDecisionLog(client, "no such log", kept=10))
    await made.warm(snapshot)
    assert (await made.warm(snapshot)).requests == LATER


async def test_the_first_cold_runs_teach_nothing(client: redis.asyncio.Redis, snapshot: RankingSnapshot) -> None:
    """Else the served cascade would take its ranker to be as slow as it was while its libraries loaded."""
    served = ranking_cascade(client, lane=None)
    quiet = ranking_cascade(client, lane=None)
    cold = quiet.costs
    made = Warmer(quiet, RedisDecisionLog(client, "no such log", kept=10), teaches=served.costs)
    await made.warm(snapshot)
    assert cold is not served.costs
    assert cold["ranker"].is_known
    assert served.costs["ranker"].is_known
    assert quiet.costs is served.costs


async def test_with_no_redis_and_a_lane_that_is_closed_it_ends_without_an_error_and_is_logged(
    stage: Stage, snapshot: RankingSnapshot, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = redis.asyncio.Redis.from_url("redis://127.0.0.1:1/0", socket_timeout=0.2)
    lane = Lane("closed")
    lane.close()
    served = ranking_cascade(nowhere, lane=lane)
    log = RedisDecisionLog(nowhere, "no such log", kept=10)
    with caplog.at_level(logging.WARNING, "headgate.warming"):
        await Warmer(ranking_cascade(nowhere, lane=lane), log, teaches=served.costs).warm(snapshot)
    assert "no recorded requests to warm up with" in caplog.text


async def test_what_cannot_be_answered_at_all_is_logged_and_raises_nothing(
    client: redis.asyncio.Redis, snapshot: RankingSnapshot, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = warmer(client, RedisDecisionLog(client, "no such log", kept=10))
    broken = _Broken()
    with caplog.at_level(logging.WARNING, "headgate.warming"):
        warmed = await made.warm(broken)  # type: ignore[arg-type]
    assert warmed.requests == 0
    assert "could not be warmed" in caplog.text
    assert (await made.warm(snapshot)).requests == FIRST


class _Broken:
    """No snapshot at all."""

    class alias:
        version = "v0"
