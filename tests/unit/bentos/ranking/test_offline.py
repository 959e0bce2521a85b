"""Answers made again from the archive: all of them to the bit, whatever came late or twice; one changed bit is found."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bentos.ranking.offline import Offline, Replayed
from infra.cascade.lane import Lane
from infra.contracts.decisions import Decision
from infra.contracts.errors import ContractViolation, SnapshotNotFound
from infra.contracts.ids import VersionName
from infra.eventlog.decisions import BEGINNING
from infra.nearline.decision_archive import read_decisions
from tests.fixtures.answers import HORIZON, NAME, Town, no_redis, town
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import tiny_world


def archived(place: Town) -> list[Decision]:
    return [entry.decision() for entry in read_decisions(place.archive)]


def offline(place: Town) -> Offline:
    return Offline(str(place.stage.root), NAME, horizon=HORIZON)


async def replay_all(place: Town, decisions: list[Decision]) -> list[Replayed]:
    again = offline(place)
    again.expect(decisions)
    return [await again.replay(decision) for decision in decisions]


async def test_every_answer_amid_late_double_and_uncounted_events_is_made_again_to_the_bit(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        await place.live(answers=220)
        await place.archive_all()
        decisions = archived(place)
        assert {one.request_id for one in decisions} == set(place.answers)
        assert len(decisions) == len(place.answers) >= 220
        replayed = await replay_all(place, decisions)
    wrong = [(one.made.request_id, one.compared.differences) for one in replayed if not one.is_exact]
    assert wrong == []
    for decision in decisions:
        assert list(decision.items) == place.answers[decision.request_id][: len(decision.items)]
    assert sum(one.compared.values for one in replayed) > 20_000
    bases = [decision.basis for decision in decisions]
    assert any(basis.pending for basis in bases), "some were read between append and apply"
    assert any(not basis.is_whole for basis in bases), "some saw more than the service keeps"
    assert len({basis.offset for basis in bases}) > 20, "the worker moved on meanwhile"
    assert len(Counter(one.decided_by for one in decisions)) >= 2
    assert len({basis.board_us for basis in bases}) > 5, "the boards were read anew"
    assert any(item.startswith("newer") for items in place.answers.values() for item in items), "new items were shown"


async def test_stages_that_failed_then_fail_again(
    own_redis: RedisProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        await place.post(
            [place.event("u3", "i7"), place.added("newer 1", genres="Drama"), place.event("u4", "newer 1")]
        )
        async with place.working("a worker"):
            await place.until_counted()
        await place.boards.refresh(time.time_ns() // 1000)
        lane = Lane("scoring")
        for late, session in (("retrieval", ["i1"]), ("ranker", ["i1"]), ("", ["i1"]), ("", [])):
            feed = place.recommender(place.client, late=late, deaf=not late, lane=lane)
            for user in (f"u{number}" for number in range(0, 120, 7)):
                await place.ask(user, feed=feed, n=250, context={"recent_items": session})
        lane.close()
        async with no_redis() as away:
            for user in ("u3", "somebody"):
                await place.ask(user, feed=place.recommender(away), n=30)
        await place.archive_all()
        decisions = archived(place)
        caplog.clear()
        replayed = await replay_all(place, decisions)
    assert [one.compared.differences for one in replayed if not one.is_exact] == []
    skipped = Counter(name for decision in decisions for name in decision.skipped)
    assert skipped.keys() == {"retrieval", "ranker", "fresh", "older_consumed"}
    assert not [record for record in caplog.records if record.name == "headgate.cascade"], "what failed then is no news"
    assert {name for one in replayed for name in one.run.outcome.stage_ms if name.startswith("after ")} == set()
    assert {decision.basis.offset is None for decision in decisions} == {True, False}
    assert {decision.degraded for decision in decisions} == {True, False}


async def test_an_answer_is_made_again_from_the_version_that_it_names(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        first = await place.ask("u5", n=20)
        place.stage.flip_live(world=tiny_world(seed=8))
        second = await place.ask("u5", n=20, feed=place.recommender(place.client))
        await place.archive_all()
        decisions = archived(place)
        replayed = await replay_all(place, decisions)
        assert [list(one.made.items) for one in replayed] == [first, second]
        assert first != second
        assert all(one.is_exact for one in replayed)
        assert [(one.made.version, one.made.generation) for one in replayed] == [("v1", 1), ("v2", 2)]
        crossed = await offline(place).replay(replace(decisions[0], version=VersionName("v2")))
        assert "items" in crossed.compared.kinds
        with pytest.raises(SnapshotNotFound):
            await offline(place).replay(replace(decisions[0], version=VersionName("v9")))


async def test_an_answer_is_made_again_at_its_own_moment(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        await place.post([place.event("u3", "i7")])
        await place.ask("u3", n=10)
        await place.archive_all()
        (decision,) = archived(place)
        later = replace(decision.basis, now_us=decision.basis.now_us + 2 * 3_600_000_000)
        replayed = await offline(place).replay(replace(decision, basis=later))
        assert (decision.nearline["clicks_last_hour"], replayed.made.nearline["clicks_last_hour"]) == (1, 0)
        assert replayed.compared.kinds == ("features", "nearline"), "the ranker looks at the clicks of the last hour"


async def test_where_the_archive_ends_before_the_answer_it_is_said(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        await place.post([place.event("u3", "i7")])
        await place.ask("u3", n=10)
        (entry,) = await place.decisions.read(after=BEGINNING, count=9)
        with pytest.raises(ContractViolation, match="ends at offset 0"):
            await offline(place).replay(entry.decision())
