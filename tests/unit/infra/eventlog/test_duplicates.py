"""Duplicates in Redis streams: exactly those within the horizon are refused, by a plain reading of the rule."""

from __future__ import annotations

import asyncio

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.events import Event, Record
from infra.eventlog.protocol import Appended
from infra.eventlog.redis_streams import RedisStreamLog
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.proof import sized
from tests.unit.infra.eventlog.scenes import RANKING, START, everything, layout, record


class PlainLog:
    """The rule: a record at offset p is a duplicate where the same key stands at an offset in [p - horizon, p) of its shard."""

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.shards: dict[int, list[Record]] = {}

    def append(self, one: Record) -> Appended:
        shard = self.shards.setdefault(one.shard, [])
        offset = len(shard) + 1
        for before in range(max(1, offset - self.horizon), offset):
            if shard[before - 1].duplicate_key == one.duplicate_key:
                return Appended(one.shard, before, duplicate=True)
        shard.append(one)
        return Appended(one.shard, offset, duplicate=False)


@given(
    horizon=st.integers(1, 6),
    batches=st.lists(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([3, 5])), max_size=12), max_size=12),
)
@hypothesis_settings(
    max_examples=sized(120, full=3000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_refused_is_what_the_rule_says_however_it_is_sent(
    redis_url: str, horizon: int, batches: list[list[tuple[int, int]]]
) -> None:
    model = PlainLog(horizon)
    sent = [[record(number, shard=shard) for number, shard in batch] for batch in batches]

    async def run() -> None:
        client = serving_client(redis_url, timeout_s=5.0)
        await client.flushall()
        log = RedisStreamLog(client, layout(horizon))
        for batch in sent:
            assert await log.append(batch) == [model.append(one) for one in batch]
        assert await everything(log, count=4) == model.shards
        for shard, held in model.shards.items():
            halves = [await client.hlen(keys.event_log_seen(RANKING, shard, half)) for half in (0, 1)]
            assert min(horizon, len(held)) <= sum(halves) <= 2 * horizon
        await client.flushall()
        await log.close()

    asyncio.run(run())


@pytest.fixture
async def log(redis_url: str) -> RedisStreamLog:
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    return RedisStreamLog(serving_client(redis_url, timeout_s=5.0), layout(4))


@pytest.mark.parametrize("filled", range(10))
async def test_the_horizon_is_met_to_the_offset_wherever_a_half_begins(log: RedisStreamLog, filled: int) -> None:
    """Between the first and the second sending are three others, then four."""
    await log.append([record(100 + number) for number in range(filled)])
    first = await log.append([record(number) for number in range(4)])
    again = await log.append([record(0)])
    assert again == [Appended(3, first[0].offset, duplicate=True)]
    await log.append([record(4)])
    assert await log.append([record(0)]) == [Appended(3, filled + 6, duplicate=False)]
    assert await log.append([record(0)]) == [Appended(3, filled + 6, duplicate=True)]
    await log.close()


async def test_of_one_call_that_says_the_same_twice_the_first_is_taken(log: RedisStreamLog) -> None:
    answers = await log.append([record(1), record(2), record(1), record(1)])
    assert [(one.offset, one.duplicate) for one in answers] == [(1, False), (2, False), (1, True), (1, True)]
    assert await everything(log) == {3: [record(1), record(2)]}
    await log.close()


async def test_the_records_of_one_event_are_no_duplicates_of_one_another(log: RedisStreamLog) -> None:
    """Not even where two kinds' records share a shard."""
    same = next(name for name in map(str, range(1000)) if Event("e", "x", START, {"user": "a", "item": name}).records()[1].shard
                == Event("e", "x", START, {"user": "a"}).records()[0].shard)  # fmt: skip
    sent = Event("e", "click", START, {"user": "a", "item": same}).records()
    for again in (False, True):
        assert [one.duplicate for one in await log.append(sent)] == [again] * 2
    await log.close()


async def test_of_producers_that_retry_at_the_same_moment_each_record_is_taken_once(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    logs = [RedisStreamLog(serving_client(redis_url, timeout_s=5.0), layout()) for _ in range(3)]
    batches = [[record(number) for number in range(start, start + 10)] for start in range(0, 60, 5)]
    answers = await asyncio.gather(*(log.append(batch) for batch in batches for log in logs))
    assert sum(not one.duplicate for answer in answers for one in answer) == 65
    held = (await everything(logs[0]))[3]
    assert sorted(one.event_id for one in held) == sorted(f"e{number}" for number in range(65))
    for batch, answer in zip([batch for batch in batches for _ in logs], answers, strict=True):
        assert [held[one.offset - 1] for one in answer] == batch
    for log in logs:
        await log.close()
