"""Golden cases of the whole cascade in process: for every wired stage a request whose list that stage decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import redis.asyncio

from bentos.ranking.content import RankingContent, RankingSnapshot, load_content
from bentos.ranking.pipeline import ranking_steps
from bentos.ranking.query import RankingQuery
from bentos.ranking.recommender import Recommender
from bentos.ranking.schema import RecommendReply, RecommendRequest
from bentos.ranking.telemetry import Telemetry
from infra.cascade.batch import Outcome
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.cascade.steps import Step
from infra.catalog.applications.ranking import RANKING
from infra.contracts.decisions import Extent
from infra.contracts.errors import InvalidRequest, SnapshotNotFound
from infra.contracts.ids import VersionName
from infra.resilience.deadline import Deadline
from infra.snapshots import keys
from infra.snapshots import live as live_snapshots
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from tests.fixtures.nearline import did, forget, seen_of
from tests.fixtures.redis_server import free_port
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import tiny_world
from tests.unit.bentos.ranking.kept import KeptDecisions, KeptLists, shadow_on

_TOTAL_GENRES = {"Drama", "Comedy", "Thriller", "Music", "Nature"}


class Feed:
    """A recommender on the package's snapshot; patient: stages take the time they need, however busy the machine is."""

    def __init__(
        self, stage: Stage, snapshot: RankingSnapshot | None, client: redis.asyncio.Redis, *, patient: bool = True
    ) -> None:
        live: LiveSnapshots[RankingContent] = LiveSnapshots(client, stage.promotion.store, load_content)
        live.current = snapshot
        self.telemetry = Telemetry("ranking")
        lane = Lane("scoring")
        steps = ranking_steps(client, lane=lane, watchers=(self.telemetry,))
        if patient:
            steps = [replace(step, budget_ms=None) for step in steps]
        self.lists = KeptLists(client, self.telemetry)
        self.decisions = KeptDecisions(self.telemetry)
        shadow = shadow_on(client, self.lists, self.telemetry)
        self._recommender = Recommender(
            live, Cascade(steps), RANKING, exposures=self.lists, decisions=self.decisions, shadow=shadow
        )

    async def ask(self, user_id: str, *, within_ms: float | None = None, **fields: object) -> RecommendReply:
        """The reply, held to its declared form."""
        request = RecommendRequest.model_validate({"user_id": user_id, **fields})
        reply = await self._recommender.recommend(request, request_id="r1", within_ms=within_ms)
        return RecommendReply.model_validate(reply)


@pytest.fixture
def feed(stage: Stage, snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> Feed:
    return Feed(stage, snapshot, client)


def ids(reply: RecommendReply) -> list[str]:
    return [item.item_id for item in reply.items]


async def test_a_known_user_gets_the_ranker_s_order_of_the_retrieved_items(
    feed: Feed, snapshot: RankingSnapshot
) -> None:
    reply = await feed.ask("u3", n=100)
    assert (reply.decided_by, reply.degraded, reply.snapshot) == ("ranker", False, "predictions_v1")
    assert {item.source for item in reply.items} == {"retrieval"}
    scores = [item.score for item in reply.items]
    assert scores == sorted(scores, reverse=True)
    assert list(reply.stage_ms) == [
        "retrieval", "consumed", "matches", "features", "ranker", "backfill", "diversity", "top", "telemetry", "total",
    ]  # fmt: skip
    retrieved = await feed.ask("u3", n=100, details=True)
    places = [int(str(item.reason).split()[1]) for item in retrieved.items]
    assert sorted(places) == list(range(1, 101))
    assert places != sorted(places), "the ranker decided the order, not retrieval"


async def test_an_unknown_user_gets_the_popular_list_and_is_told(feed: Feed, snapshot: RankingSnapshot) -> None:
    reply = await feed.ask("a user whom nobody knows", n=3)
    assert (reply.decided_by, reply.degraded) == ("popular", False)
    assert {item.source for item in reply.items} == {"popular"}
    assert ids(reply)[0] == f"i{snapshot.content.popular[0]}"
    assert "ranker" not in reply.stage_ms


async def test_session_items_of_the_context_are_not_shown_and_change_the_scores(feed: Feed) -> None:
    before = await feed.ask("u3", n=50)
    session = ids(before)[:2]
    after = await feed.ask("u3", n=50, context={"recent_items": session, "screen": {"kind": "phone"}})
    assert not set(session) & set(ids(after))
    assert len(after.items) == 50


async def test_what_the_stream_saw_since_the_batch_is_not_shown(feed: Feed, client: redis.asyncio.Redis) -> None:
    first = ids(await feed.ask("u4", n=5))[0]
    await did(client, "u4", first)
    try:
        assert first not in ids(await feed.ask("u4", n=299))
    finally:
        await forget(client, "u4")


async def test_an_unknown_user_s_own_clicks_are_not_shown_again(feed: Feed, client: redis.asyncio.Redis) -> None:
    first = ids(await feed.ask("fresh", n=5))[0]
    await did(client, "fresh", first)
    try:
        again = await feed.ask("fresh", n=299)
        assert first not in ids(again)
        assert len(again.items) == 299
    finally:
        await forget(client, "fresh")


async def test_excluded_items_are_not_shown_and_the_list_is_not_shorter(feed: Feed) -> None:
    whole = ids(await feed.ask("u5", n=100))
    reply = await feed.ask("u5", n=100, exclude=[*whole[:60], "no such item", "a:{}\n\x00"])
    assert len(reply.items) == 100
    assert not set(whole[:60]) & set(ids(reply))
    assert [item.source for item in reply.items].count("backfill") == 60
    assert len(set(ids(reply))) == 100
    scores = [item.score for item in reply.items]
    assert scores == sorted(scores, reverse=True)


async def test_a_list_that_is_filled_up_brings_back_nothing_from_long_ago(feed: Feed) -> None:
    world = tiny_world()
    user = max(range(120), key=lambda at: len(world.histories[at]))
    reply = await feed.ask(f"u{user}", n=300)
    assert "older_consumed" in reply.stage_ms
    assert set(ids(reply)) == {f"i{item}" for item in range(300)} - {f"i{item}" for item in world.histories[user]}


async def test_where_all_is_excluded_the_list_is_empty_and_nothing_has_decided(feed: Feed) -> None:
    reply = await feed.ask("u5", n=10, exclude=[f"i{item}" for item in range(300)])
    assert (reply.items, reply.decided_by, reply.degraded) == ([], "nothing", False)


async def test_diversity_holds_a_genre_to_half_of_the_list(feed: Feed, snapshot: RankingSnapshot) -> None:
    for user in range(30):
        items = (await feed.ask(f"u{user}", n=10, details=True)).items
        for genre in _TOTAL_GENRES:
            assert sum(genre in (item.genres or []) for item in items) <= 5
        creators = [item.creator for item in items if item.creator]
        assert max(map(creators.count, creators), default=0) <= 3


async def test_details_tell_title_and_why_the_item_was_a_candidate(feed: Feed, snapshot: RankingSnapshot) -> None:
    reply = await feed.ask("u3", n=20, details=True)
    for item in reply.items:
        assert item.title == snapshot.content.items.titles[int(item.item_id[1:])]
        assert "of 100 retrieved" in str(item.reason)
    assert any("genres like your “" in str(item.reason) or "from studio " in str(item.reason) for item in reply.items)
    plain = await feed.ask("u3", n=1)
    assert plain.items[0].title is None


async def test_while_redis_is_away_the_popular_list_comes_and_says_that_it_is_degraded(
    stage: Stage, snapshot: RankingSnapshot
) -> None:
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    reply = await Feed(stage, snapshot, client).ask("u3", n=5, exclude=["i1"])
    assert (reply.decided_by, reply.degraded, len(reply.items)) == ("popular", True, 5)
    assert reply.skipped["retrieval"].startswith("DependencyUnavailable: Redis did not answer")
    await client.aclose()


async def test_a_version_whose_records_are_gone_from_redis_is_not_taken_for_an_unknown_user(
    stage: Stage, snapshot: RankingSnapshot, client: redis.asyncio.Redis, feed: Feed
) -> None:
    marker, record = (
        keys.load_marker(RANKING.name, snapshot.alias.version),
        keys.user_record(RANKING.name, VersionName("v1"), "u3"),
    )
    kept = {key: await client.get(key) for key in (marker, record)}
    await client.delete(marker, record)
    try:
        reply = await feed.ask("u3", n=5)
    finally:
        await client.mset({key: value for key, value in kept.items() if value is not None})
    assert (reply.decided_by, reply.degraded) == ("popular", True)
    assert "v1 is not in Redis" in reply.skipped["retrieval"]


@pytest.mark.parametrize("payload", [b"", b"not a record", b"hg\x01\x05\xff\xff\x00\x00"])
async def test_bytes_that_are_no_record_give_the_popular_list_and_never_nonsense(
    payload: bytes, client: redis.asyncio.Redis, feed: Feed
) -> None:
    record = keys.user_record(RANKING.name, VersionName("v1"), "u3")
    kept = cast(bytes, await client.get(record))
    await client.set(record, payload)
    try:
        reply = await feed.ask("u3", n=5)
    finally:
        await client.set(record, kept)
    assert (reply.decided_by, reply.degraded) == ("popular", True)


async def test_a_ranker_that_fails_leaves_retrieval_s_order(
    feed: Feed, snapshot: RankingSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("no model today")

    monkeypatch.setattr(snapshot.content.ranker, "inplace_predict", fails)
    reply = await feed.ask("u3", n=100, details=True)
    assert (reply.decided_by, reply.degraded) == ("retrieval", True)
    assert [int(str(item.reason).split()[1]) for item in reply.items] == list(range(1, 101))
    assert "no model today" in reply.skipped["ranker"]


async def test_scores_that_are_not_numbers_leave_retrieval_s_order(
    feed: Feed, snapshot: RankingSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        snapshot.content.ranker, "inplace_predict", lambda features, **_: np.full(len(features), np.nan, np.float32)
    )
    reply = await feed.ask("u3", n=5)
    assert (reply.decided_by, reply.degraded) == ("retrieval", True)


async def test_a_deadline_too_short_for_redis_still_gives_a_list(
    stage: Stage, snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    reply = await Feed(stage, snapshot, client, patient=False).ask("u3", n=5, within_ms=0.0001)
    assert (reply.decided_by, reply.degraded, len(reply.items)) == ("popular", True, 5)
    assert "could not start" in reply.skipped["retrieval"]


async def test_without_a_snapshot_there_is_nothing_to_serve(stage: Stage, client: redis.asyncio.Redis) -> None:
    with pytest.raises(SnapshotNotFound, match="nothing to serve: no version is live yet"):
        await Feed(stage, None, client).ask("u3")


@pytest.mark.parametrize("user_id", ["", "x" * 257])
async def test_a_user_id_that_cannot_be_one_is_refused(user_id: str, feed: Feed) -> None:
    with pytest.raises(InvalidRequest, match="wanted 1 to 256"):
        await feed.ask(user_id)


async def test_telemetry_counts_who_decided_and_what_was_removed(
    feed: Feed, stage: Stage, snapshot: RankingSnapshot
) -> None:
    taken = ids(await feed.ask("u3", n=5))
    await feed.ask("u3", n=5, exclude=taken)
    await feed.ask("nobody", n=5)
    counted = feed.telemetry.counters
    assert (counted["recommendations"], counted["degraded"], counted["removed_by_excluded"]) == (3, 0, 5)
    assert (counted["decided_by_ranker"], counted["decided_by_popular"]) == (2, 1)
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    away = Feed(stage, snapshot, client)
    await away.ask("u3")
    assert (away.telemetry.counters["degraded"], away.telemetry.counters["decided_by_popular"]) == (1, 1)
    await client.aclose()


def test_consumed_items_are_newest_first_and_each_once(snapshot: RankingSnapshot) -> None:
    query = RankingQuery(snapshot, "u1", n=5, session=[4, 5], excluded=np.empty(0, np.int32))
    query.learn(None, seen_of("u1", "i7", "i4", "i6", "i5"))
    assert query.consumed.tolist() == [4, 5, 6, 7]


class StoppedOnce(Cascade[RankingQuery]):
    """Its first run lasts until no lease is held: as if the process had been stopped in the middle of it."""

    def __init__(self, steps: list[Step[RankingQuery]], live: LiveSnapshots[RankingContent]) -> None:
        super().__init__(steps)
        self._live = live
        self.runs = 0
        self.stopped_ms = 0.0
        self.deadlines: list[Deadline] = []

    async def run(
        self, query: RankingQuery, deadline: Deadline, *, extents: Mapping[str, Extent] | None = None
    ) -> Outcome:
        self.runs += 1
        self.deadlines.append(deadline)
        began_s = time.monotonic()
        while self.runs == 1 and self._live.lease():
            await asyncio.sleep(0.01)
        self.stopped_ms += (time.monotonic() - began_s) * 1000
        return await super().run(query, deadline)


@pytest.mark.parametrize(("leased", "runs"), [(True, 2), (False, 1)], ids=["leased", "Redis was away before"])
async def test_a_request_that_outlived_the_lease_of_its_snapshot_is_answered_anew_once(
    leased: bool,
    runs: int,
    stage: Stage,
    snapshot: RankingSnapshot,
    client: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_snapshots, "LEASE_S", 2.0)
    live: LiveSnapshots[RankingContent] = LiveSnapshots(client, stage.promotion.store, load_content)
    live.current = snapshot
    if leased:
        await live.check()
        assert live.lease()
    cascade = StoppedOnce([replace(step, budget_ms=None) for step in ranking_steps(client, lane=None)], live)
    request = RecommendRequest.model_validate({"user_id": "u3", "n": 5})
    telemetry = Telemetry("ranking")
    lists = KeptLists(client, telemetry)
    recommender = Recommender(
        live,
        cascade,
        RANKING,
        exposures=lists,
        decisions=KeptDecisions(telemetry),
        shadow=shadow_on(client, lists, telemetry),
    )
    reply = RecommendReply.model_validate(await recommender.recommend(request, request_id="r1"))
    assert (cascade.runs, len(reply.items)) == (runs, 5)
    (noted,) = lists.noted
    assert (list(noted.items), round(noted.total_ms, 3)) == (ids(reply), reply.stage_ms["total"])
    assert noted.total_ms > cascade.stopped_ms, "the user waited for both"
    assert len(set(cascade.deadlines)) == 1, "and neither had a time of its own"
    assert bool(live.lease()) is leased


async def test_a_request_that_names_very_many_items_is_logged_by_their_number(feed: Feed) -> None:
    await feed.ask("u3", n=5, exclude=["i1"])
    assert feed.decisions.noted[-1].request == {"n": 5, "deadline_ms": None, "recent_items": [], "exclude": ["i1"]}
    await feed.ask("u3", n=5, exclude=[f"{number:0>20}" for number in range(1000)])
    assert feed.decisions.noted[-1].request == {"n": 5, "deadline_ms": None, "items_named": 1000}
