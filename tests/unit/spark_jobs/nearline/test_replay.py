"""Spark's replay of the archive, a worker's state in Redis and a plain loop over the events are the same, bit for bit."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis.asyncio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from infra.catalog.features.nearline import plan_of
from infra.contracts import features as contract
from infra.contracts.errors import ContractViolation, OperatorError
from infra.contracts.events import SHARDS, Event, Record, shard_of
from infra.contracts.features import BOARD, Deltas
from infra.contracts.ids import ApplicationName
from infra.eventlog.redis_streams import RedisStreamLog
from infra.nearline import looking
from infra.nearline.applying import apply_all
from infra.nearline.archive import Archiver, archive_of, end_of, write_lost
from infra.nearline.counting import Horizon
from infra.nearline.opening import stream_layout
from infra.nearline.past import Past
from infra.nearline.resuming import resume, seen_before
from infra.nearline.state import StateStore
from infra.snapshots.connection import serving_client
from infra.snapshots.storage import Storage
from spark_jobs.nearline import replay, restore
from tests.fixtures.list_log import ListLog, each_once
from tests.fixtures.proof import sized

PLAN = plan_of("ranking")
NOW = datetime.now(UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)
HORIZON = 12

EVENTS = st.lists(
    st.builds(
        lambda number, kind, user, item, age_s: Event(
            f"e{number}",
            kind,
            NOW - timedelta(seconds=age_s),
            {"user": f"u{user}"} if kind == "search" else {"user": f"u{user}", "item": f"i{item}"},
            {"query": f"q{item}"} if kind == "search" else {},
        ),
        st.integers(0, 60),  # few ids, so that many come again, near and far
        st.sampled_from(["view", "click", "rating", "purchase", "search"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(-200, 8 * 86_400),  # late, out of order, ahead of the clock
    ),
    min_size=30,
    max_size=150,
)


@dataclass
class Stage:
    """An application of a test's own in Redis, and its archive."""

    application: ApplicationName
    client: redis.asyncio.Redis
    archive: Storage

    @property
    def state(self) -> StateStore:
        return StateStore(self.client, self.application, PLAN)

    async def digests(self) -> dict[int, str]:
        return (await looking.digests(self.client, self.application, PLAN, NOW_US)).digests

    async def lose(self) -> None:
        written = [key async for key in self.client.scan_iter(match=f"hg:*{self.application}*", count=5000)]
        if written:
            await self.client.unlink(*written)

    async def close(self) -> None:
        await self.lose()
        await self.client.aclose()


def new_stage(url: str, folder: str) -> Stage:
    application = ApplicationName(f"t{uuid.uuid4().hex[:10]}")
    return Stage(application, serving_client(url, timeout_s=5.0), Storage(folder))


def reference(records: Sequence[Record]) -> dict[int, str]:
    """The digests by a plain loop."""
    by_shard: dict[int, Deltas] = {shard: {} for shard in range(SHARDS)}
    for record in records:
        PLAN.accumulate([record], by_shard[record.shard])
    return {shard: contract.digest(states, PLAN, NOW_US) for shard, states in by_shard.items()}


async def work(stage: Stage, log: ListLog) -> None:
    """A worker's work by hand, in slices of any size."""
    for shard in range(SHARDS):
        claim = await stage.state.claim(shard, "worker")
        assert claim is not None
        while pieces := await log.read({shard: claim.offset}, count=20):
            claim = await apply_all(pieces, claim, stage.state, PLAN, horizon=Horizon(HORIZON))


def source(stage: Stage, upto: dict[int, int] | None = None) -> replay.Source:
    return replay.source_of(stage.archive, PLAN, horizon=HORIZON, upto=upto)


def replayed(spark: SparkSession, stage: Stage, upto: dict[int, int] | None = None) -> dict[int, str]:
    return replay.digests(replay.states(spark, source(stage, upto)), PLAN, NOW_US)


def test_worker_replay_and_a_plain_loop_agree(spark: SparkSession, redis_url: str) -> None:
    duplicates = []

    async def play(stage: Stage, log: ListLog, events: list[Event]) -> dict[int, str]:
        for one in events:
            await log.append(one.records())
        log.leave_a_hole(0)
        archivers = [Archiver(log, stage.archive, records=count, seconds=1) for count in (7, 1000)]
        await asyncio.gather(*(archiver.once(at_once=True) for archiver in archivers))
        await work(stage, log)
        found = await stage.digests()
        await stage.close()
        return found

    @settings(
        max_examples=sized(3, full=40), deadline=None, phases=[Phase.generate]
    )  # a second an example: no shrinking
    @given(events=EVENTS, seed=st.integers(0, 1000))
    def property_of(events: list[Event], seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            log, stage = ListLog(seed=seed), new_stage(redis_url, folder)
            counted = asyncio.run(play(stage, log, events))
            once = each_once(log, horizon=HORIZON)
            duplicates.append(sum(len(rows) for rows in log.records.values()) - len(once))
            assert counted == reference(once)
            assert replayed(spark, stage) == counted

    property_of()
    assert max(duplicates) > 5, "hardly anything was sent twice: the property was half empty"


async def history(stage: Stage, *, n_events: int = 300) -> ListLog:
    """An archived log with late and repeated events."""
    log = ListLog(seed=3)
    for number in range(n_events):
        entities = {"user": f"u{number % 7}", "item": f"i{number % 5}"}
        moment = NOW - timedelta(seconds=(number * 7919) % 20_000)
        event = Event(f"e{number - number % 9 // 8}", ("click", "view", "purchase")[number % 3], moment, entities)
        await log.append(event.records())
    await Archiver(log, stage.archive, records=40, seconds=1).once(at_once=True)
    return log


async def test_a_replay_ends_at_any_offsets(spark: SparkSession, redis_url: str, tmp_path: Path) -> None:
    stage = new_stage(redis_url, str(tmp_path))
    log = await history(stage)
    for fraction in (0.0, 0.4):
        upto = {shard: int(end_of(stage.archive, shard) * fraction) for shard in range(SHARDS)}
        wanted = [
            record
            for record in each_once(log, horizon=HORIZON)
            if next(at for at, one in log.records[record.shard] if one is record) <= upto[record.shard]
        ]
        assert await asyncio.to_thread(replayed, spark, stage, upto) == reference(wanted)
    with pytest.raises(ContractViolation, match="wanted are records up to 10000"):
        source(stage, {3: 10_000})
    await stage.close()


async def test_the_past_of_one_entity_is_what_redis_held_then(redis_url: str, tmp_path: Path) -> None:
    stage = new_stage(redis_url, str(tmp_path))
    log = await history(stage)
    past = Past(stage.archive, PLAN, horizon=HORIZON)
    entities = [*(("user", f"u{n}") for n in range(7)), *(("item", f"i{n}") for n in range(5))]
    compared = 0
    for shard in {shard_of(*entity) for entity in entities}:
        claim = await stage.state.claim(shard, "worker")
        assert claim is not None
        while pieces := await log.read({shard: claim.offset}, count=9):
            claim = await apply_all(pieces, claim, stage.state, PLAN, horizon=Horizon(HORIZON))
            for entity in entities:
                if shard_of(*entity) == shard:
                    (held,) = await stage.state.read([(*entity, shard)])
                    assert past.state_at(entity, {shard: claim.offset}) == held
                    compared += bool(held)
            (board,) = await stage.state.read([("item", BOARD, shard)])
            assert past.board_at("item", shard, claim.offset) == board
    assert compared > 100
    await stage.close()


async def test_the_past_of_an_answer_holds_its_pending_records(redis_url: str, tmp_path: Path) -> None:
    stage = new_stage(redis_url, str(tmp_path / "ranking" / "archive"))
    log = await history(stage)
    shard = shard_of("user", "u2")
    own = [(at, record) for at, record in log.records[shard] if record.entity_id == "u2"]
    applied, extra = own[9][0], (own[11][0], own[12][0])
    once = {id(record) for record in each_once(log, horizon=HORIZON)}
    deltas: Deltas = {}
    PLAN.accumulate([record for at, record in own if at <= applied and id(record) in once], deltas)
    PLAN.accumulate([record for at, record in own if at in extra], deltas)
    past = Past(archive_of(str(tmp_path), ApplicationName("ranking")), PLAN, horizon=HORIZON)
    assert past.state_at(("user", "u2"), {shard: applied}, extra) == deltas["user", "u2"]
    with pytest.raises(ContractViolation, match="python -m infra.nearline archive"):
        past.state_at(("user", "u2"), {shard: 100_000})
    await stage.close()


async def test_a_loss_is_told(redis_url: str, tmp_path: Path) -> None:
    stage = new_stage(redis_url, str(tmp_path))
    await history(stage)
    end = end_of(stage.archive, 4)
    write_lost(stage.archive, 4, after=end, upto=end + 5, reason="a test")
    assert replay.lost_offsets(source(stage)) == {4: 5}
    assert replay.lost_offsets(source(stage, {4: end + 2})) == {4: 2}
    await stage.close()


def target(stage: Stage, url: str, *, with_seen: bool = False) -> restore.Target:
    upto = source(stage).upto
    seen = {shard: seen_before(stage.archive, shard, upto=end, horizon=HORIZON) for shard, end in upto.items()}
    return restore.Target(url, stage.application, PLAN, upto, uuid.uuid4().hex, NOW_US, seen if with_seen else {})


async def test_a_lost_redis_is_rebuilt_and_the_worker_goes_on(
    spark: SparkSession, redis_url: str, tmp_path: Path
) -> None:
    stage = new_stage(redis_url, str(tmp_path))
    log = await history(stage)
    await work(stage, log)
    before = await stage.digests()
    await stage.lose()
    to = target(stage, redis_url, with_seen=True)
    await restore.require_empty(to)
    states = await asyncio.to_thread(replay.states, spark, source(stage))
    entities = await asyncio.to_thread(restore.restore, states, to)
    assert sum(entities.values()) >= 8
    assert await stage.digests() == before
    assert await stage.state.offsets() == to.upto
    again = await asyncio.to_thread(restore.restore, states, target(stage, redis_url))
    assert sum(again.values()) == 0 and await stage.digests() == before, "what was done is left alone"
    sent_again = [record for rows in log.records.values() for _, record in rows[-3:]]
    await log.append(sent_again)
    await log.append(Event("fresh", "click", NOW, {"user": "u1", "item": "i1"}).records())
    await work(stage, log)
    assert await stage.digests() == reference(each_once(log, horizon=HORIZON))
    await stage.close()


async def test_a_restore_that_was_killed_is_run_again(redis_url: str, tmp_path: Path) -> None:
    stage = new_stage(redis_url, str(tmp_path))
    log = await history(stage)
    shard = shard_of("user", "u2")
    states: Deltas = {}
    PLAN.accumulate([record for record in each_once(log, horizon=HORIZON) if record.shard == shard], states)
    to = target(stage, redis_url)
    killed = asyncio.create_task(restore.restore_shard(to, shard, states))
    while not (await stage.state.read([("user", "u2", shard)]))[0]:
        await asyncio.sleep(0)
        assert not killed.done() or not killed.exception()
    killed.cancel()
    await asyncio.wait([killed])
    position = f"hg:{{{stage.application}.{shard:02d}}}:position"
    await stage.client.hset(position, "offset", "0")  # as if the last piece had never come
    assert await restore.restore_shard(to, shard, states) > 0
    assert (await stage.digests())[shard] == contract.digest(states, PLAN, NOW_US)
    await stage.close()


async def test_a_restore_into_a_state_that_is_not_empty_is_refused(redis_url: str, tmp_path: Path) -> None:
    stage = new_stage(redis_url, str(tmp_path))
    log = await history(stage)
    shard = shard_of("user", "u2")
    claim = await stage.state.claim(shard, "worker")
    assert claim is not None
    with pytest.raises(OperatorError, match=f"holds shard {shard}.*Stop it"):
        await restore.restore_shard(target(stage, redis_url), shard, {})
    await apply_all(await log.read({shard: 0}, count=3), claim, stage.state, PLAN, horizon=Horizon(HORIZON))
    with pytest.raises(OperatorError, match=f"not empty: shard {shard}"):
        await restore.require_empty(target(stage, redis_url))
    await stage.close()


async def test_a_log_in_redis_goes_on_behind_the_archive(redis_url: str, tmp_path: Path) -> None:
    """What services appended since the loss moves; what was sent twice is found; offsets are used once."""
    stage = new_stage(redis_url, str(tmp_path))
    log = RedisStreamLog(serving_client(redis_url, timeout_s=5.0), stream_layout(stage.application, horizon=HORIZON))
    old = [record for number in range(40) for record in Event(f"e{number}", "search", NOW, {"user": "u2"}).records()]
    await log.append(old)
    await Archiver(log, stage.archive, records=1000, seconds=1).once(at_once=True)
    await stage.lose()
    new = Event("new", "search", NOW, {"user": "u2"}).records()
    await log.append([old[-1], *new, old[0]])
    shard = shard_of("user", "u2")
    moved = await resume(log, stage.client, stage.application, stage.archive, shard, upto=40, horizon=HORIZON)
    assert moved == 2, "the newest of the archive was sent twice; the oldest is beyond the horizon"
    (piece,) = await log.read({shard: 40}, count=10)
    assert list(piece.offsets) == [41, 42]
    assert [(place.offset, place.duplicate) for place in await log.append([*new, old[35]])] == [(41, True), (36, True)]
    assert await resume(log, stage.client, stage.application, stage.archive, shard, upto=40, horizon=HORIZON) == 0
    await log.close()
    await stage.close()


async def test_a_log_that_lost_its_tail_goes_on_behind_the_archive(redis_url: str, tmp_path: Path) -> None:
    stage = new_stage(redis_url, str(tmp_path))
    log = RedisStreamLog(serving_client(redis_url, timeout_s=5.0), stream_layout(stage.application, horizon=HORIZON))
    sent = [record for number in range(40) for record in Event(f"e{number}", "search", NOW, {"user": "u2"}).records()]
    await log.append(sent[:30])
    shard = shard_of("user", "u2")
    kept = {name: await stage.client.dump(name) async for name in stage.client.scan_iter(f"hg:*{stage.application}*")}
    await log.append(sent[30:])
    await Archiver(log, stage.archive, records=1000, seconds=1).once(at_once=True)
    await stage.lose()
    for name, content in kept.items():
        assert content is not None
        await stage.client.restore(name, 0, content)
    assert await resume(log, stage.client, stage.application, stage.archive, shard, upto=40, horizon=HORIZON) == 0
    assert await log.read({shard: 40}, count=10) == []
    (place,) = await log.append(Event("new", "search", NOW, {"user": "u2"}).records())
    assert place.offset == 41
    await log.close()
    await stage.close()
