"""What every event log promises, asked of Kafka on a real broker and of Redis by the same tests."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS
from infra.eventlog.kafka import KafkaLog
from infra.eventlog.protocol import EventLog, Extent, LogLost, Slice
from infra.eventlog.records import decode
from tests.fixtures.logs import ids, kafka_log, new_application, record, redis_log
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import free_port


@pytest_asyncio.fixture(params=["kafka", "redis"])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    """An empty log of either kind."""
    made: EventLog
    if request.param == "kafka":
        made = kafka_log(request.getfixturevalue("kafka"))
    else:
        made = redis_log(request.getfixturevalue("redis_url"))
    yield made
    await made.close()


async def test_records_come_back_as_they_were_sent_in_their_shards_order(log: EventLog) -> None:
    sent = [record(n, shard=n % 3, note="a:{}\n\x00é") for n in range(30)]
    appended = await log.append(sent)
    assert [row.offset for row in appended] == [n // 3 + 1 for n in range(30)]
    assert [row.shard for row in appended] == [n % 3 for n in range(30)]
    assert not any(row.duplicate for row in appended)
    found = {part.shard: part for part in await log.read(dict.fromkeys(range(SHARDS), 0), count=100)}
    assert sorted(found) == [0, 1, 2]  # those without records are left out
    for shard, part in found.items():
        assert (part.after, part.upto, list(part.offsets)) == (0, 10, list(range(1, 11)))
        assert decode(part.payloads) == sent[shard::3]
        assert list(part.logged_ms) == sorted(part.logged_ms)


async def test_reading_goes_on_after_an_offset_and_stops_at_the_count(log: EventLog) -> None:
    await log.append([record(n, shard=n % 2) for n in range(20)])
    first = await log.read({0: 0, 1: 6}, count=4)
    assert [(part.shard, list(part.offsets)) for part in first] == [(0, [1, 2, 3, 4]), (1, [7, 8, 9, 10])]
    (rest,) = await log.read({0: 4, 1: 10}, count=100)
    assert (rest.shard, rest.after, rest.upto) == (0, 4, 10)
    assert await log.read({0: 10, 1: 10}, count=1) == []
    assert await log.read({}, count=1) == []


async def test_nothing_appended_is_nothing_written(log: EventLog) -> None:
    assert await log.append([]) == []
    assert await log.extents([0, 1]) == {0: Extent(1, 0), 1: Extent(1, 0)}
    assert await log.read({0: 0, 1: 0}, count=10) == []


async def test_what_was_acknowledged_is_in_the_next_read(log: EventLog) -> None:
    at = dict.fromkeys(range(SHARDS), 0)
    for n in range(100):
        sent = [record(n, shard=shard) for shard in {n % SHARDS, (7 * n + 1) % SHARDS}]
        await log.append(sent)
        found = await log.read(at, count=10)
        assert {part.shard: ids(part) for part in found} == {row.shard: [row.event_id] for row in sent}
        at |= {part.shard: part.upto for part in found}


async def test_of_many_who_append_at_once_every_record_stands_at_the_offset_it_was_told(log: EventLog) -> None:
    batches = [[record(100 * b + n, shard=(b + n) % 4) for n in range(20)] for b in range(10)]
    answers = await asyncio.gather(*(log.append(batch) for batch in batches))
    told = {
        (row.shard, row.offset): sent.event_id
        for batch, answer in zip(batches, answers, strict=True)
        for sent, row in zip(batch, answer, strict=True)
    }
    found = await log.read(dict.fromkeys(range(4), 0), count=1000)
    read = {(part.shard, offset): name for part in found for offset, name in zip(part.offsets, ids(part), strict=True)}
    assert read == told and len(told) == 200


async def test_a_moment_has_the_offsets_that_were_logged_before_it(log: EventLog) -> None:
    await log.append([record(n) for n in range(4)])
    (early,) = await log.read({3: 0}, count=10)
    while time.time() * 1000 < early.logged_ms[-1] + 2:
        await asyncio.sleep(0.001)
    between = datetime.now(UTC)
    while time.time() < between.timestamp() + 0.002:
        await asyncio.sleep(0.001)
    await log.append([record(n) for n in range(4, 6)])
    assert await log.offset_before(3, between) == 4
    assert await log.offset_before(3, datetime(2020, 1, 1, tzinfo=UTC)) == 0
    assert await log.offset_before(3, datetime(2200, 1, 1, tzinfo=UTC)) == 6
    assert await log.offset_before(5, between) == 0


async def test_what_was_trimmed_is_lost_to_whoever_had_not_read_it(log: EventLog) -> None:
    await log.append([record(n) for n in range(10)])
    await log.trim(3, upto=6)
    assert await log.extents([3]) == {3: Extent(7, 10)}
    (rest,) = await log.read({3: 6}, count=100)
    assert list(rest.offsets) == [7, 8, 9, 10]
    for behind in (0, 5):
        with pytest.raises(LogLost, match="Shard 3 of the log begins at 7; wanted is"):
            await log.read({3: behind}, count=100)
    await log.trim(3, upto=4)
    assert await log.extents([3]) == {3: Extent(7, 10)}
    await log.trim(3, upto=10)
    assert await log.extents([3]) == {3: Extent(11, 10)}
    assert await log.read({3: 10}, count=1) == []
    assert (await log.append([record(11)]))[0].offset == 11


async def test_a_reader_who_has_read_more_than_there_is_is_told_of_the_loss(log: EventLog) -> None:
    await log.append([record(n) for n in range(5)])
    with pytest.raises(LogLost, match="Shard 3 of the log ends at 5; it was read up to 6 before"):
        await log.read({3: 6}, count=10)
    assert len(await log.read({3: 0}, count=10)) == 1  # and goes on where that is right


async def test_any_sequence_of_reads_gives_what_a_list_would(log: EventLog) -> None:
    rng = random.Random(20_261_125)
    tips = {shard: rng.choice([0, 1, 50, 900]) for shard in range(SHARDS)}
    await log.append([record(n, shard=shard) for shard, tip in tips.items() for n in range(1, tip + 1)])
    for _ in range(sized(60, full=600)):
        at = {shard: rng.randint(0, tips[shard]) for shard in rng.sample(range(SHARDS), rng.randint(1, SHARDS))}
        for _ in range(rng.randint(1, 4)):
            count = rng.choice([1, 3, 100, 5000])
            found = {part.shard: part for part in await log.read(at, count=count)}
            for shard, after in at.items():
                wanted = list(range(after + 1, min(after + count, tips[shard]) + 1))
                part = found.get(shard, Slice(shard, after, after, [], [], []))
                assert list(part.offsets) == wanted
                assert ids(part) == [f"e{n}" for n in wanted]
                assert (part.after, part.upto) == (after, wanted[-1] if wanted else after)
                at[shard] = part.upto


@pytest.mark.parametrize("kind", ["kafka", "redis"])
async def test_a_log_that_nobody_answers_for_is_unavailable_at_every_call(kind: str) -> None:
    port = free_port()
    log: EventLog
    if kind == "kafka":
        log = KafkaLog(new_application(), bootstrap=f"127.0.0.1:{port}", extra={})
    else:
        log = redis_log(f"redis://127.0.0.1:{port}/0")
    calls: list[Awaitable[object]] = [
        log.append([record(1)]),
        log.read({3: 0}, count=1),
        log.extents([3]),
        log.offset_before(3, datetime.now(UTC)),
        log.trim(3, upto=1),
    ]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DependencyUnavailable] * 5
    await log.close()
