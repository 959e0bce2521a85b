"""Explanations: a logged answer's, exact or said not to be; a request's; and why an item is not in the list."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bentos.ranking.content import RankingContent, load_content
from bentos.ranking.explain_schema import MOST_ITEMS, ExplainReply, ExplainRequest, ItemExplained
from bentos.ranking.explaining import WITHIN_S, Explainer
from bentos.ranking.offline import Offline
from bentos.ranking.reader import UserReader
from bentos.ranking.recalling import Recall
from bentos.web.exchange import BadRequest
from bentos.web.request_ids import moment_of, new_request_id
from infra.contracts.decisions import Extent
from infra.contracts.errors import DependencyUnavailable
from infra.eventlog.decisions import BEGINNING
from infra.snapshots.live import LiveSnapshots
from tests.fixtures.answers import HORIZON, NAME, Town, town
from tests.fixtures.redis_server import RedisProcess


@asynccontextmanager
async def explaining(place: Town, *, within_s: float = WITHIN_S) -> AsyncIterator[Explainer]:
    """As the service wires it, on what is live now, with the town's boards."""
    live: LiveSnapshots[RankingContent] = LiveSnapshots(
        place.client,
        place.stage.promotion.store,
        lambda version, manifest: load_content(version, manifest, boards=lambda: place.boards.current),
    )
    alias = place.stage.promotion.alias.read()
    assert alias is not None
    live.current = live.read(alias)
    explainer = Explainer(
        live,
        UserReader(place.client, NAME),
        Recall(place.decisions, place.archive),
        offline=lambda since: Offline(str(place.stage.root), NAME, horizon=HORIZON, since=since),
        within_s=within_s,
    )
    yield explainer
    explainer.close()


async def explained(explainer: Explainer, *, items: list[str] | None = None, **asked: object) -> ExplainReply:
    request = ExplainRequest.model_validate({"items": items or [], **asked})
    return ExplainReply.model_validate(await explainer.explain(request, request_id="this call"))


def of(reply: ExplainReply, item_id: str) -> ItemExplained:
    return next(item for item in reply.asked if item.item_id == item_id)


async def test_an_answer_of_a_moment_ago_is_explained_exactly_from_what_is_known_now(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        shown = await place.ask("u5", n=20)
        (request_id,) = place.answers
        reply = await explained(explainer, request_id=request_id)
    assert (reply.exact, reply.made_from, reply.differences) == (True, "live state", [])
    assert (reply.request_id, reply.user_id, reply.decided_by) == (request_id, "u5", "ranker")
    assert [item.item_id for item in reply.items] == shown
    assert [item.place for item in reply.items] == list(range(1, 21))
    assert {item.verdict for item in reply.items} == {"shown"}


async def test_the_features_shares_add_up_to_the_trees_score(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        reply = await explained(explainer, request={"user_id": "u5", "n": 30})
    for item in reply.items:
        assert item.trees is not None
        total = item.trees.bias + sum(share.contribution for share in item.trees.features)
        assert abs(total - item.trees.score) < 1e-4
        assert item.trees.score == pytest.approx(item.scores["ranker"], abs=1e-6)
        sizes = [abs(share.contribution) for share in item.trees.features]
        assert sizes == sorted(sizes, reverse=True)
    assert len({share.contribution for item in reply.items if item.trees for share in item.trees.features[:1]}) > 1


async def test_an_interrupted_ranker_is_explained_by_the_trees_and_rows_it_did(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        await place.ask("u5", n=20)
        (entry,) = await place.decisions.read(after=BEGINNING, count=9)
        partly = replace(
            entry.decision(), request_id="partly", extents={"ranker": Extent(30, 1)}, skipped={"ranker": "did a part"}
        )
        await place.decisions.append([partly])
        outside = await explained(explainer, request={"user_id": "u5", "n": 100})
        behind = next(item.item_id for item in outside.items if item.places["sources"] > 30)
        reply = await explained(explainer, request_id="partly", items=[behind])
    assert of(reply, behind).trees is None
    for item in reply.items:
        assert item.trees is not None
        assert item.places["sources"] <= 30
        assert abs(item.trees.bias + sum(one.contribution for one in item.trees.features) - item.trees.score) < 1e-4


async def test_why_not(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        shown = await place.ask("u5", n=20)
        await place.post([place.event("u5", shown[0])])
        whole = await explained(explainer, request={"user_id": "u5", "n": 20})
        history = set(await place.ask("u5", n=300))
        consumed = next(f"i{item}" for item in range(300) if f"i{item}" not in history and f"i{item}" != shown[0])
        reply = await explained(
            explainer,
            request={"user_id": "u5", "n": 5, "exclude": [shown[1]]},
            items=["no such item", consumed, shown[0], shown[1], shown[15], shown[2]],
        )
    assert shown[0] not in [item.item_id for item in whole.items]
    assert of(reply, "no such item").verdict == "not_in_catalogue"
    assert of(reply, consumed).verdict == "not_proposed"
    assert (of(reply, consumed).by, of(reply, consumed).source) == ("consumed", "")
    assert "before the batch" in of(reply, consumed).because
    assert (of(reply, shown[0]).verdict, of(reply, shown[0]).by) == ("removed", "consumed")
    assert of(reply, shown[0]).because == "consumed since the batch"
    assert (of(reply, shown[1]).verdict, of(reply, shown[1]).because) == ("removed", "excluded by the request")
    cut = of(reply, shown[15])
    assert (cut.verdict, cut.place, cut.source) == ("cut", None, "retrieval")
    assert cut.trees is not None
    assert cut.places["ranker"] > 5
    assert {"consumed", "excluded"} <= set(cut.passed)
    assert of(reply, shown[2]).verdict == "shown"
    assert [item.place for item in reply.items] == [1, 2, 3, 4, 5]


async def test_an_item_passed_over_for_diversity_is_said_to_be(own_redis: RedisProcess, tmp_path: Path) -> None:
    """Of the best n by score some are passed over; each is told by the selector's name and its place."""
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        everything = await explained(explainer, request={"user_id": "u5", "n": 50})
        best = [item.item_id for item in sorted(everything.items, key=lambda item: item.places["ranker"])][:10]
        reply = await explained(explainer, request={"user_id": "u5", "n": 10}, items=best)
    passed_over = [item for item in reply.asked if item.verdict == "cut"]
    assert passed_over
    assert all(item.by == "diversity" and "passed over" in item.because for item in passed_over)


async def test_the_stages_tell_how_many_candidates_each_left(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        reply = await explained(explainer, request={"user_id": "u5", "n": 7, "exclude": ["i1"]})
    left = {stage.stage: (stage.kind, stage.candidates) for stage in reply.stages}
    assert left["retrieval"] == ("source", 100)
    assert left["top"] == ("selector", 7)
    assert "trending" not in left
    assert not any(name.startswith("after ") for name in left)


async def test_an_old_answer_is_made_again_from_the_archive(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        first = await place.ask("u5", n=10)
        (request_id,) = place.answers
        async with place.working("a worker"):
            await place.post([place.event("u5", first[0]), place.event("u5", first[1])])
            await place.until_counted()
        await place.archive_all()
        await place.decisions.trim(upto=f"{time.time_ns() // 1_000_000 + 1000}-0")
        async with explaining(place) as explainer:
            reply = await explained(explainer, request_id=request_id)
    assert (reply.exact, reply.made_from) == (True, "archive")
    assert [item.item_id for item in reply.items] == first


async def test_an_answer_that_cannot_be_made_again_yet_is_said_to_be_inexact_and_what_to_do(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        async with place.working("a worker"):
            await place.post([place.event("u5", "i7")])
            await place.until_counted()
            first = await place.ask("u5", n=10)
            (request_id,) = place.answers
            await place.post([place.event("u5", first[0])])
            await place.until_counted()
        async with explaining(place) as explainer:
            reply = await explained(explainer, request_id=request_id)
    assert (reply.exact, reply.made_from) == (False, "live state")
    assert any(text.startswith("items") for text in reply.differences)
    assert "not archived yet" in reply.note


async def test_what_failed_then_fails_again(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        for late in ("ranker", "retrieval"):
            await place.ask("u5", n=20, feed=place.recommender(place.client, late=late))
        replies = [await explained(explainer, request_id=request_id) for request_id in place.answers]
    assert [reply.exact for reply in replies] == [True, True]
    assert [reply.degraded for reply in replies] == [True, True]
    assert [reply.decided_by for reply in replies] == ["retrieval", "popular"]
    assert all(item.trees is None for reply in replies for item in reply.items)
    assert any(stage.stage == "ranker" and stage.skipped for stage in replies[0].stages)


async def test_an_unknown_answer_is_404(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        with pytest.raises(BadRequest, match="There is no answer 'nothing'") as refused:
            await explained(explainer, request_id="nothing")
    assert refused.value.status == 404


async def test_an_answer_of_a_snapshot_that_is_gone_is_said_to_be(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        await place.ask("u5", n=20)
        (entry,) = await place.decisions.read(after=BEGINNING, count=9)
        await place.decisions.append([replace(entry.decision(), request_id="gone", version="v99")])  # type: ignore[arg-type]
        with pytest.raises(DependencyUnavailable, match="v99 cannot be made again"):
            await explained(explainer, request_id="gone")


async def test_at_most_so_many_items_are_explained(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        reply = await explained(explainer, request={"user_id": "u5", "n": 200}, items=["i1", "i2"])
        assert len(reply.items) == MOST_ITEMS - 2
        with pytest.raises(ValueError, match="at most 50"):
            ExplainRequest.model_validate({"request_id": "r", "items": ["i1"] * 51})
        with pytest.raises(ValueError, match="either request_id or request"):
            ExplainRequest.model_validate({"items": ["i1"]})


async def test_calls_wait_for_their_turn_and_too_many_are_refused(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        calls = [explained(explainer, request={"user_id": "u5"}) for _ in range(20)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    answered = [one for one in outcomes if isinstance(one, ExplainReply)]
    refused = [one for one in outcomes if isinstance(one, DependencyUnavailable)]
    assert (len(answered), len(refused)) == (8, 12)
    assert len({tuple(item.item_id for item in one.items) for one in answered}) == 1


async def test_an_explanation_is_neither_shown_nor_logged(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place) as explainer:
        await explained(explainer, request={"user_id": "u5"})
        assert await place.decisions.read(after=BEGINNING, count=9) == []


async def test_an_answer_among_thousands_is_found_by_its_time_or_from_the_newest_on(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        await place.ask("u5", n=2)
        (entry,) = await place.decisions.read(after=BEGINNING, count=9)
        one = entry.decision()
        stamp = f"{int(datetime.now(UTC).timestamp() * 1000):012x}"
        timed = [f"{stamp}7{number:03x}8{'0' * 15}" for number in range(700)]
        await place.decisions.append([replace(one, request_id=name) for name in timed])
        recall = Recall(place.decisions, place.archive)
        for name in (timed[0], timed[-1], one.request_id):
            found = await recall.find(name)
            assert found is not None
            assert found.request_id == name
        assert await recall.find(timed[0][:-1] + "1") is None
        await place.archive_all(records=100)
        await place.decisions.trim(upto=f"{time.time_ns() // 1_000_000 + 1000}-0")
        for name in (timed[350], one.request_id):
            found = await recall.find(name)
            assert found is not None
            assert found.request_id == name


@pytest.mark.parametrize("ahead_s", [60, 3600])
async def test_an_id_of_a_moment_to_come_keeps_nobody_waiting(
    own_redis: RedisProcess, tmp_path: Path, ahead_s: int
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        later = f"{int((time.time() + ahead_s) * 1000):012x}{new_request_id()[12:]}"
        assert moment_of(later) is not None
        async with asyncio.timeout(20):
            assert await Recall(place.decisions, place.archive).find(later) is None


async def test_a_call_that_takes_too_long_gives_its_turn_to_the_next(own_redis: RedisProcess, tmp_path: Path) -> None:
    """The first one waits for a Redis that hangs."""
    async with town(own_redis.url, tmp_path / "store") as place, explaining(place, within_s=1.0) as explainer:
        await place.ask("u5", n=20)
        (request_id,) = place.answers
        assert own_redis.process is not None
        own_redis.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DependencyUnavailable, match="took longer than 1 s"):
                await explained(explainer, request_id=request_id)
        finally:
            own_redis.process.send_signal(signal.SIGCONT)
        reply = await explained(explainer, request={"user_id": "nobody", "n": 5})
        assert len(reply.items) == 5
