"""A recommender beside a canary or a shadow: who is shown which, what is logged of it, and what nobody sees."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio

from bentos.ranking.content import RankingContent, load_content
from bentos.ranking.inspection import Inspection
from bentos.ranking.pipeline import ranking_steps
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import UserReader
from bentos.ranking.recommender import Recommender
from bentos.ranking.schema import CanaryStatus, RecommendReply, RecommendRequest
from bentos.ranking.shadow import Asked, ShadowScorer
from bentos.ranking.telemetry import Telemetry
from infra.cascade.batch import Outcome
from infra.cascade.runner import Cascade
from infra.catalog.applications.ranking import RANKING
from infra.contracts.canaries import CanaryMode
from infra.contracts.errors import ContractViolation, InvalidRequest, SnapshotNotFound
from infra.contracts.exposures import Arm
from infra.contracts.snapshots import State
from infra.resilience.deadline import Deadline
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import Version
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import build_tiny_snapshot
from tests.unit.bentos.ranking.kept import KeptDecisions, KeptLists, shadow_on

USERS = [f"u{number}" for number in range(40)]


@dataclass
class Feed:
    """A recommender on v1, with v2 beside it."""

    live: LiveSnapshots[RankingContent]
    recommender: Recommender
    shadow: ShadowScorer
    lists: KeptLists
    telemetry: Telemetry
    inspection: Inspection

    async def ask(self, user_id: str, *, n: int = 5) -> RecommendReply:
        request = RecommendRequest.model_validate({"user_id": user_id, "n": n})
        return RecommendReply.model_validate(await self.recommender.recommend(request, request_id=f"of {user_id}"))

    def of_shadows(self) -> dict[str, int]:
        return {name: number for name, number in self.telemetry.counters.items() if name.startswith("shadow_")}

    async def scored(self) -> None:
        """The shadow has ended its work."""
        async with asyncio.timeout(20):
            while not self.shadow._task or not self.shadow._task.done():
                await asyncio.sleep(0.001)


@pytest.fixture
def beside(redis_url: str, tmp_path: Path) -> Iterator[tuple[Stage, Version]]:
    stage = Stage(tmp_path / "store", redis_url)
    stage.client.flushall()
    stage.flip_live()
    version = build_tiny_snapshot(str(stage.root), k=100, generation=1)
    version.record(State.VALIDATED, actor="gate", reason="test")
    stage.promotion.load(version, limit_fraction=1.0)
    yield stage, version
    stage.client.flushall()


def begin(stage: Stage, version: Version, mode: CanaryMode, fraction: float) -> None:
    stage.promotion.start_canary(version, fraction, mode, actor="ada", reason="r")


@pytest_asyncio.fixture
async def feed(beside: tuple[Stage, Version]) -> AsyncIterator[Feed]:
    stage, _ = beside
    client: redis.asyncio.Redis = serving_client(stage.redis_url, timeout_s=5.0)
    live: LiveSnapshots[RankingContent] = LiveSnapshots(client, stage.promotion.store, load_content)
    telemetry = Telemetry("ranking")
    lists = KeptLists(client, telemetry)
    shadow = shadow_on(client, lists, telemetry)
    steps = ranking_steps(client, lane=None, watchers=(telemetry,))
    cascade = Cascade([replace(step, budget_ms=None) for step in steps])  # however busy the machine is
    recommender = Recommender(
        live, cascade, RANKING, exposures=lists, decisions=KeptDecisions(telemetry), shadow=shadow
    )
    inspection = Inspection(live, recommender, UserReader(client, RANKING.name))
    yield Feed(live, recommender, shadow, lists, telemetry, inspection)
    await shadow.stop()
    await live.stop()
    await client.aclose()


async def loaded(feed: Feed) -> None:
    async with asyncio.timeout(20):
        await feed.live.check()
        while feed.live.canary is None:
            await asyncio.sleep(0.005)
            await feed.live.check()


async def test_each_answer_is_the_arm_s_and_is_logged_as_it_was_shown(
    feed: Feed, beside: tuple[Stage, Version]
) -> None:
    begin(*beside, CanaryMode.CANARY, 0.5)
    await loaded(feed)
    canary = feed.live.current.alias.canary if feed.live.current else None
    assert canary is not None
    replies = {user: await feed.ask(user) for user in USERS}
    assert {reply.snapshot for reply in replies.values()} == {"predictions_v1", "predictions_v2"}
    for noted, (user, reply) in zip(feed.lists.noted, replies.items(), strict=True):
        takes = canary.takes(user)
        assert reply.snapshot == ("predictions_v2" if takes else "predictions_v1")
        assert (noted.user_id, noted.request_id, noted.generation) == (user, f"of {user}", 2)
        assert (noted.version, noted.arm) == (("v2", Arm.CANARY) if takes else ("v1", Arm.LIVE))
        assert list(noted.items) == [item.item_id for item in reply.items]
        assert noted.degraded == reply.degraded and round(noted.total_ms, 3) == reply.stage_ms["total"]
        assert (await feed.inspection.user(user))["snapshot"] == reply.snapshot, "its page tells what the user gets"


async def test_a_shadow_scores_what_was_answered_and_only_its_list_is_logged(
    feed: Feed, beside: tuple[Stage, Version]
) -> None:
    begin(*beside, CanaryMode.SHADOW, 1.0)
    await loaded(feed)
    reply = await feed.ask("u3")
    await feed.scored()
    shown, unseen = feed.lists.noted
    assert (reply.snapshot, shown.arm, shown.version) == ("predictions_v1", Arm.LIVE, "v1")
    assert (unseen.arm, unseen.version, unseen.request_id, unseen.user_id) == (Arm.SHADOW, "v2", "of u3", "u3")
    assert len(unseen.items) == 5
    assert feed.telemetry.counters["recommendations"] == 1, "nobody was answered by it"
    assert feed.of_shadows() == {"shadow_dropped": 0, "shadow_scored": 1, "shadow_failed": 0}


async def test_of_users_whose_lists_are_not_logged_nothing_is_noted_or_scored_along(
    feed: Feed, beside: tuple[Stage, Version]
) -> None:
    begin(*beside, CanaryMode.SHADOW, 1.0)
    await loaded(feed)
    feed.lists._users_fraction = 0.0
    assert len((await feed.ask("u3")).items) == 5
    assert (feed.lists.noted, feed.shadow._task) == ([], None)


async def test_a_failed_request_is_not_logged(feed: Feed, beside: tuple[Stage, Version]) -> None:
    with pytest.raises(SnapshotNotFound):
        await feed.ask("u3")
    await feed.live.check()
    with pytest.raises(InvalidRequest):
        await feed.ask("")
    assert feed.lists.noted == []


async def test_while_a_shadow_is_at_work_others_are_let_go(feed: Feed, beside: tuple[Stage, Version]) -> None:
    begin(*beside, CanaryMode.SHADOW, 1.0)
    await loaded(feed)
    pinned = feed.live.canary
    assert pinned is not None
    request = RecommendRequest.model_validate({"user_id": "u1"})
    for number in range(3):
        feed.shadow.score(Asked(request, f"r{number}", budget_ms=1000.0), pinned)
    await feed.scored()
    assert [one.request_id for one in feed.lists.noted] == ["r0"]
    assert feed.of_shadows() == {"shadow_dropped": 2, "shadow_scored": 1, "shadow_failed": 0}


async def test_a_shadow_that_fails_is_counted_and_told_and_the_answer_is_whole(
    feed: Feed, beside: tuple[Stage, Version], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin(*beside, CanaryMode.SHADOW, 1.0)
    await loaded(feed)

    async def fails(*args: object) -> None:
        raise ContractViolation("a stage went wrong")

    monkeypatch.setattr(feed.shadow._cascade, "run", fails)
    for _ in range(3):
        reply = await feed.ask("u3")
        await feed.scored()
        assert len(reply.items) == 5
    assert feed.of_shadows() == {"shadow_dropped": 0, "shadow_scored": 0, "shadow_failed": 3}
    assert "the shadow v2 scored nothing: ContractViolation: a stage went wrong" in caplog.text
    assert {one.arm for one in feed.lists.noted} == {Arm.LIVE}


async def test_the_status_tells_what_runs_beside_and_why_it_is_not_served(
    feed: Feed, beside: tuple[Stage, Version]
) -> None:
    await feed.live.check()
    pinned = feed.live.current
    assert pinned is not None
    now = pinned.loaded_at
    assert feed.inspection.status(now=now)["canary"] is None
    begin(*beside, CanaryMode.CANARY, 0.25)
    await feed.live.check()
    assert feed.inspection.ready()["note"] == "v2 is being loaded"
    waiting = CanaryStatus.model_validate(feed.inspection.status(now=now)["canary"])
    assert (waiting.loaded_at, waiting.problem) == (None, "v2 is being loaded")
    await loaded(feed)
    told = CanaryStatus.model_validate(feed.inspection.status(now=now)["canary"])
    assert (told.snapshot, told.mode, told.fraction, told.started_by) == ("predictions_v2", "canary", 0.25, "ada")
    assert told.loaded_at is not None and (told.problem, feed.inspection.ready()["note"]) == ("", "")


async def test_a_canary_whose_copy_is_gone_degrades_its_users_only(feed: Feed, beside: tuple[Stage, Version]) -> None:
    stage, version = beside
    begin(stage, version, CanaryMode.CANARY, 0.5)
    await loaded(feed)
    stage.client.delete(*stage.client.keys("hg:{ranking.??}:v2:*"))
    for user in USERS:
        reply = await feed.ask(user)
        assert len(reply.items) == 5
        assert reply.degraded == (reply.snapshot == "predictions_v2")
    degraded = Counter((one.arm, one.degraded) for one in feed.lists.noted)
    assert set(degraded) == {(Arm.CANARY, True), (Arm.LIVE, False)}


async def test_a_canary_that_fails_a_request_is_stood_in_for_by_the_live_one_and_it_counts_against_it(
    feed: Feed, beside: tuple[Stage, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(*beside, CanaryMode.CANARY, 0.5)
    await loaded(feed)
    run = Cascade.run

    async def fails(cascade: Cascade[RankingQuery], query: RankingQuery, deadline: Deadline) -> Outcome:
        if query.snapshot.alias.version == "v2":
            raise ContractViolation("a stage went wrong")
        return await run(cascade, query, deadline)

    monkeypatch.setattr(Cascade, "run", fails)
    for user in USERS:
        assert (await feed.ask(user)).snapshot == "predictions_v1"
    assert {(one.arm, one.version) for one in feed.lists.noted} == {(Arm.LIVE, "v1"), (Arm.CANARY, "v1")}
