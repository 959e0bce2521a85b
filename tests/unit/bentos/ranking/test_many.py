"""Lists for many users in one call: few at a time, whoever calls, and all of it bounded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import redis.asyncio

from bentos.ranking.content import RankingContent, RankingSnapshot, load_content
from bentos.ranking.many import AT_ONCE, Many
from bentos.ranking.pipeline import steps_with
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import UserReader
from bentos.ranking.recommender import Recommender
from bentos.ranking.schema_lists import ManyReply, ManyRequest
from bentos.ranking.telemetry import Telemetry
from bentos.web.openapi import ErrorReply
from infra.cascade.runner import Cascade
from infra.catalog.applications.ranking import RANKING
from infra.contracts.errors import InvalidRequest, SnapshotNotFound
from infra.snapshots.live import LiveSnapshots
from tests.fixtures.service import Stage
from tests.unit.bentos.ranking.kept import KeptDecisions, KeptLists, shadow_on


class CountingReader(UserReader):
    """Knows how many reads were under way at once; breaks for one user."""

    under_way = most = reads = 0

    async def read(self, query: RankingQuery) -> None:
        self.reads += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await super().read(query)
            if query.user_id == "broken":
                raise RuntimeError("no such thing")
        finally:
            self.under_way -= 1


def many(
    stage: Stage, snapshot: RankingSnapshot | None, client: redis.asyncio.Redis, reader: CountingReader
) -> tuple[Many, KeptDecisions]:
    live: LiveSnapshots[RankingContent] = LiveSnapshots(client, stage.promotion.store, load_content)
    live.current = snapshot
    telemetry = Telemetry("ranking")
    steps = [replace(step, budget_ms=None) for step in steps_with(reader, lane=None)]
    lists, decisions = KeptLists(client, telemetry), KeptDecisions(telemetry)
    shadow = shadow_on(client, lists, telemetry)
    recommender = Recommender(live, Cascade(steps), RANKING, exposures=lists, decisions=decisions, shadow=shadow)
    return Many(recommender), decisions


@pytest.fixture
def reader(client: redis.asyncio.Redis) -> CountingReader:
    return CountingReader(client, RANKING.name)


async def test_several_calls_together_have_few_entries_under_way(
    stage: Stage, snapshot: RankingSnapshot, client: redis.asyncio.Redis, reader: CountingReader
) -> None:
    together, decisions = many(stage, snapshot, client, reader)
    asked = ManyRequest(requests=[{"user_id": f"u{number}"} for number in range(60)], deadline_ms=60_000)
    replies = await asyncio.gather(*(together.recommend(asked, request_id=f"call{at}") for at in range(3)))
    assert [ManyReply.model_validate(reply).failed for reply in replies] == [0, 0, 0]
    assert (reader.reads, reader.most) == (180, AT_ONCE)
    assert len(decisions.noted) == 180
    assert {one.request_id for one in decisions.noted} >= {"call0-0", "call2-59"}


async def test_an_entry_whose_stages_break_is_answered_by_its_fallback_and_the_others_as_ever(
    stage: Stage, snapshot: RankingSnapshot, client: redis.asyncio.Redis, reader: CountingReader
) -> None:
    together, _ = many(stage, snapshot, client, reader)
    asked = ManyRequest(requests=[{"user_id": "u1"}, {"user_id": "broken"}, {"user_id": "u2"}], deadline_ms=60_000)
    reply = ManyReply.model_validate(await together.recommend(asked, request_id="r"))
    assert reply.failed == 0
    assert [result.degraded for result in reply.results if not isinstance(result, ErrorReply)] == [False, True, False]


async def test_what_is_too_much_altogether_is_refused_before_anything_is_read(
    stage: Stage, snapshot: RankingSnapshot, client: redis.asyncio.Redis, reader: CountingReader
) -> None:
    together, _ = many(stage, snapshot, client, reader)
    asked = ManyRequest.model_validate({"requests": [{"user_id": "u1"}] * 51, "shared": {"n": 1000}})
    with pytest.raises(InvalidRequest, match=r"51,000 items in all \(n of each\); wanted at most 50,000"):
        await together.recommend(asked, request_id="r")
    assert reader.reads == 0


async def test_without_a_snapshot_the_whole_call_is_refused(
    stage: Stage, client: redis.asyncio.Redis, reader: CountingReader
) -> None:
    together, _ = many(stage, None, client, reader)
    with pytest.raises(SnapshotNotFound):
        await together.recommend(ManyRequest(requests=[{"user_id": "u1"}]), request_id="r")
