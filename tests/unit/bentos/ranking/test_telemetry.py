"""What is counted of an outcome: why a stage was held back, who settled it, and what the native thread was left with."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.query import RankingQuery
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.telemetry import BESIDE, Telemetry
from infra.cascade.batch import EMPTY, Outcome, Reason
from infra.cascade.lane import Lane, LaneBusy
from infra.contracts.decisions import Extent
from tests.unit.infra.cascade.breaking import Spinning


def outcome_of(**fields: object) -> Outcome:
    known: dict[str, object] = {
        "batch": EMPTY,
        "decided_by": "ranker",
        "settled_by": "",
        "degraded": False,
        "stage_ms": {},
        "started_ms": {},
        "skipped": {},
        "reasons": {},
        "extents": {},
        "removed": [],
    }
    return Outcome(**{**known, **fields})  # type: ignore[arg-type]


@pytest.fixture
def query(snapshot: RankingSnapshot) -> RankingQuery:
    return RankingQuery.of(RecommendRequest(user_id="u1"), snapshot)


async def test_a_stage_that_was_not_started_is_not_counted_as_one_that_failed(query: RankingQuery) -> None:
    telemetry = Telemetry("reasons")
    for at, reason in enumerate(Reason):
        extents = {"ranker": Extent(200, 3)} if reason is Reason.PARTLY else {}
        for _ in range(at + 1):
            await telemetry.act(query, outcome_of(reasons={"ranker": reason}, extents=extents))
    told = {reason: telemetry.counters[f"{reason}_ranker"] for reason in Reason}
    assert told == {reason: at + 1 for at, reason in enumerate(Reason)}
    partly = told[Reason.PARTLY]
    assert telemetry.counters["rows_of_partly_ranker"] == 200 * partly
    assert telemetry.counters["parts_of_partly_ranker"] == 3 * partly
    for reason, times in told.items():
        labels = {"application": "reasons", "stage": "ranker", "reason": str(reason)}
        assert REGISTRY.get_sample_value("headgate_stages_held_back_total", labels) == times


async def test_who_settled_a_request_is_counted(query: RankingQuery) -> None:
    telemetry = Telemetry("settling")
    for settled_by in ("light", "light", ""):
        await telemetry.act(query, outcome_of(settled_by=settled_by))
    assert telemetry.counters["settled_by_light"] == 2
    assert telemetry.counters["recommendations"] == 3
    labels = {"application": "settling", "by": "light"}
    assert REGISTRY.get_sample_value("headgate_settled_total", labels) == 2


async def test_calls_that_a_lane_was_left_with_and_those_it_refused_are_counted() -> None:
    telemetry = Telemetry("lanes")
    lane = Lane("test", tell=telemetry.note)
    spinning = Spinning(lane)
    waiting = asyncio.create_task(spinning(EMPTY))
    async with asyncio.timeout(30):
        while not spinning.began.is_set():
            await asyncio.sleep(0.001)
    assert {telemetry.counters[name] for name in ("lane_abandoned", "lane_refused")} == {0}, "there from the start"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for _ in range(2):
        with pytest.raises(LaneBusy):
            await lane.run(lambda: None)
    assert (telemetry.counters["lane_abandoned"], telemetry.counters["lane_refused"]) == (1, 2)
    assert REGISTRY.get_sample_value("headgate_lane_refused_total", {"application": "lanes"}) == 2
    assert {"lane_abandoned", "lane_refused"} <= BESIDE.keys()
    await spinning.until_ended()
    lane.close()
