"""What the event log in Redis streams must do: offsets, what is lost, what is refused, and what is there after a failure."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS
from infra.eventlog import records as wire
from infra.eventlog.protocol import Appended, Extent, LogLost
from infra.eventlog.redis_streams import RedisStreamLog
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.proof import sized
from tests.fixtures.redis_memory import remembered
from tests.fixtures.redis_server import RedisProcess, new_redis
from tests.unit.infra.eventlog.scenes import ALL, RANKING, drained, everything, layout, record, spread, write_by_hand

SOON_S = 60.0
"""Far more than any answer takes; whoever waits longer hangs."""


@dataclass
class Under:
    """A log under test and the Redis behind it."""

    log: RedisStreamLog
    raw: redis.Redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def forgetful() -> Iterator[RedisProcess]:
    """A Redis to kill that then has lost its memory."""
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest_asyncio.fixture
async def under(server: RedisProcess) -> AsyncIterator[Under]:
    raw = redis.Redis.from_url(server.url)
    raw.flushall()
    log = RedisStreamLog(serving_client(server.url, timeout_s=5.0), layout())
    yield Under(log, raw)
    await log.close()
    raw.close()


async def test_records_are_read_back_in_their_order_at_offsets_from_1_of_each_shard(under: Under) -> None:
    sent = [record(1), record(2), record(3, shard=5), record(4)]
    assert await under.log.append(sent) == [
        Appended(3, 1, duplicate=False),
        Appended(3, 2, duplicate=False),
        Appended(5, 1, duplicate=False),
        Appended(3, 3, duplicate=False),
    ]
    assert await everything(under.log) == {3: [sent[0], sent[1], sent[3]], 5: [sent[2]]}
    assert await under.log.extents([3, 5, 9]) == {3: Extent(1, 3), 5: Extent(1, 1), 9: Extent(1, 0)}


async def test_one_call_takes_records_of_all_shards_and_one_reads_them(under: Under) -> None:
    sent = spread(range(50))
    answers = await under.log.append(sent)
    assert [(one.shard, one.offset) for one in answers] == [(n % SHARDS, n // SHARDS + 1) for n in range(50)]
    pieces = await under.log.read(ALL, count=100)
    assert [piece.shard for piece in pieces] == list(range(SHARDS))
    assert {piece.shard: wire.decode(piece.payloads) for piece in pieces} == {
        shard: sent[shard::SHARDS] for shard in range(SHARDS)
    }


async def test_reading_goes_on_behind_an_offset_and_stops_at_the_count_of_each_shard(under: Under) -> None:
    await under.log.append([*(record(n) for n in range(10)), record(10, shard=5)])
    first = await under.log.read({3: 0, 5: 0}, count=4)
    assert [(piece.shard, piece.after, piece.upto) for piece in first] == [(3, 0, 4), (5, 0, 1)]
    rest = await under.log.read({3: 4, 5: 1}, count=100)
    assert [(piece.shard, list(piece.offsets)) for piece in rest] == [(3, [5, 6, 7, 8, 9, 10])]
    assert await under.log.read({3: 10, 5: 1}, count=5) == []
    assert await under.log.read({}, count=5) == []


async def test_nothing_appended_is_nothing_written(under: Under) -> None:
    assert await under.log.append([]) == []
    assert await everything(under.log) == {} and under.raw.dbsize() == 0


async def test_the_log_says_when_it_took_a_record_by_its_own_clock(under: Under) -> None:
    def now_ms() -> int:
        seconds, micros = under.raw.time()
        return int(seconds) * 1000 + int(micros) // 1000

    before = now_ms()
    await under.log.append([record(1)])
    (piece,) = await under.log.read({3: 0}, count=1)
    assert before <= piece.logged_ms[0] <= now_ms()


# -- what is lost


async def test_what_was_trimmed_is_lost_to_whoever_has_yet_to_read_it_and_to_nobody_else(under: Under) -> None:
    await under.log.append([record(n) for n in range(6)])
    await under.log.trim(3, upto=4)
    assert await under.log.extents([3]) == {3: Extent(5, 6)}
    for after in (0, 3):
        with pytest.raises(LogLost, match=rf"Shard 3 of the log begins at 5; wanted is {after + 1}\."):
            await under.log.read({3: after}, count=10)
    (piece,) = await under.log.read({3: 4}, count=10)
    assert list(piece.offsets) == [5, 6]


async def test_a_log_of_which_all_was_trimmed_goes_on_at_the_next_offset(under: Under) -> None:
    await under.log.append([record(n) for n in range(3)])
    await under.log.trim(3, upto=10)
    assert await under.log.extents([3]) == {3: Extent(4, 3)}
    assert await under.log.read({3: 3}, count=10) == []
    with pytest.raises(LogLost, match="begins at 4; wanted is 3"):
        await under.log.read({3: 2}, count=10)
    again, fresh = await under.log.append([record(2), record(3)])
    assert again == Appended(3, 3, duplicate=True), "what is trimmed is still known"
    assert fresh == Appended(3, 4, duplicate=False)


async def test_a_hole_in_the_middle_is_a_loss_and_so_is_an_entry_that_stands_beyond_all(under: Under) -> None:
    stream = keys.event_log(RANKING, 3)
    await under.log.append([record(n) for n in range(4)])
    under.raw.xdel(stream, "2-0", *(entry for entry, _ in under.raw.xrange(stream, "2-0", "2")))  # type: ignore[arg-type,union-attr]
    with pytest.raises(LogLost, match=r"Shard 3 of the log has 3 records from 1 to 4\."):
        await under.log.read({3: 0}, count=10)
    under.raw.xadd(stream, {"who": "somebody else"})
    with pytest.raises(LogLost, match=r"Shard 3 of the log has 3 records from 3 to 1[0-9]{12}\."):
        await under.log.read({3: 2}, count=10)


async def test_an_offset_that_the_log_never_reached_is_a_loss(under: Under) -> None:
    await under.log.append([record(n) for n in range(3)])
    with pytest.raises(LogLost, match=r"Shard 3 of the log ends at 3; it was read up to 4 before\.") as raised:
        await under.log.read({3: 4}, count=1)
    assert "archive" in raised.value.mend


async def test_a_redis_that_lost_its_memory_is_a_loss_and_not_an_empty_log(forgetful: RedisProcess) -> None:
    before, log = (RedisStreamLog(serving_client(forgetful.url, timeout_s=5.0), layout()) for _ in range(2))
    await before.append([record(n) for n in range(3)])
    forgetful.kill()
    forgetful.start()
    with pytest.raises(LogLost, match=r"ends at 0; it was read up to 3 before\."):
        await log.read({3: 3}, count=1)
    assert await log.append([record(1)]) == [Appended(3, 1, duplicate=False)]
    await before.close()
    await log.close()


@given(
    times_ms=st.lists(st.integers(1, 60), max_size=30).map(sorted),
    trimmed=st.integers(0, 30),
    moment_ms=st.integers(0, 61),
)
@hypothesis_settings(
    max_examples=sized(60, full=1000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_offset_before_a_moment_is_that_of_the_last_record_logged_earlier(
    server: RedisProcess, times_ms: list[int], trimmed: int, moment_ms: int
) -> None:
    async def found() -> int:
        log = RedisStreamLog(serving_client(server.url, timeout_s=5.0), layout())
        await log.trim(3, upto=trimmed)
        offset = await log.offset_before(3, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment_ms))
        await log.read({3: offset}, count=1)  # may be read from
        await log.close()
        return offset

    with redis.Redis.from_url(server.url) as raw:
        raw.flushall()
        if times_ms:
            write_by_hand(raw, times_ms)
    earlier = sum(time_ms < moment_ms for time_ms in times_ms)
    assert asyncio.run(found()) == max(earlier, min(trimmed, len(times_ms)))


# -- what is refused


async def test_with_memory_full_nothing_of_an_append_is_written_and_later_all_of_it(under: Under) -> None:
    await under.log.append([record(0)])
    held = remembered(under.raw)
    under.raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(DependencyUnavailable, match=r"did not take 40 record.*memory"):
            await under.log.append(spread(range(1, 41)))
        assert await everything(under.log) == {3: [record(0)]}, "it can still be read"
    finally:
        under.raw.config_set("maxmemory", 0)
    assert remembered(under.raw) == held
    assert not any(one.duplicate for one in await under.log.append(spread(range(1, 41))))


async def test_where_one_shard_fails_the_call_fails_and_sent_again_the_others_count_once(under: Under) -> None:
    stream = keys.event_log(RANKING, 5)
    under.raw.set(stream, "in the way")
    sent = [record(1, shard=4), record(2, shard=5), record(3, shard=6)]
    with pytest.raises(DependencyUnavailable) as raised:
        await under.log.append(sent)
    assert raised.value.mend == "Send the events again with the same event_id; one that was taken counts once."
    under.raw.delete(stream)
    assert [one.duplicate for one in await under.log.append(sent)] == [True, False, True]
    assert await everything(under.log) == {4: [sent[0]], 5: [sent[1]], 6: [sent[2]]}


async def test_what_headgate_did_not_write_is_not_taken_for_a_record(under: Under) -> None:
    await under.log.append([record(1)])
    under.raw.xadd(keys.event_log(RANKING, 3), {"who": "somebody else"}, id="2-5")
    under.raw.set(keys.event_log_tip(RANKING, 3), 2)
    (piece,) = await under.log.read({3: 0}, count=10)
    assert wire.decode(piece.payloads) == [record(1), wire.FOREIGN]


# -- a Redis that goes away


async def test_a_log_that_is_away_says_so_for_every_call_and_takes_nothing(forgetful: RedisProcess) -> None:
    log = RedisStreamLog(serving_client(forgetful.url, timeout_s=1.0), layout())
    forgetful.kill()
    calls = (
        log.append([record(1)]),
        log.read(ALL, count=1),
        log.extents([1]),
        log.offset_before(1, datetime.now(UTC)),
        log.trim(1, upto=1),
    )
    for call in calls:
        with pytest.raises(DependencyUnavailable):
            await asyncio.wait_for(call, SOON_S)
    forgetful.start()
    await log.append([record(1)])
    assert await everything(log) == {3: [record(1)]}
    await log.close()


async def test_a_redis_that_hangs_is_given_up_and_what_it_took_after_all_counts_once(own_redis: RedisProcess) -> None:
    log = RedisStreamLog(serving_client(own_redis.url, timeout_s=0.5), layout())
    await log.append([record(0)])  # connected, and the script is known
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(DependencyUnavailable):
                await asyncio.wait_for(log.append([record(1)]), SOON_S)
        with pytest.raises(DependencyUnavailable):
            await asyncio.wait_for(log.read(ALL, count=1), SOON_S)
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    (answer,) = await log.append([record(1)])
    assert answer.offset == 2
    assert await everything(log) == {3: [record(0), record(1)]}
    await log.close()


async def test_what_was_acknowledged_outlives_a_power_cut_and_what_is_sent_again_counts_once(
    own_redis: RedisProcess,
) -> None:
    log = RedisStreamLog(serving_client(own_redis.url, timeout_s=5.0), layout())
    acknowledged: dict[int, int] = {}

    async def send() -> None:
        for number in range(100_000):
            (answer,) = await log.append([record(number)])
            acknowledged[number] = answer.offset

    sending = asyncio.create_task(send())
    while len(acknowledged) < 50:
        await asyncio.sleep(0)
    own_redis.kill()
    with pytest.raises(DependencyUnavailable):
        await sending
    own_redis.start()
    unanswered = len(acknowledged)
    again = await log.append([record(number) for number in (*acknowledged, unanswered)])
    assert [(one.offset, one.duplicate) for one in again[:-1]] == [(offset, True) for offset in acknowledged.values()]
    assert await everything(log) == {3: [record(number) for number in range(unanswered + 1)]}
    await log.close()


async def test_reading_while_others_append_loses_nothing_and_never_calls_it_lost(
    under: Under, server: RedisProcess
) -> None:
    after, seen = dict(ALL), list[str]()

    async def send(first: int) -> None:
        log = RedisStreamLog(serving_client(server.url, timeout_s=5.0), layout())
        for start in range(first, first + 400, 8):
            await log.append(spread(range(start, start + 8)))
        await log.close()

    sending = asyncio.gather(*(send(first) for first in (0, 1000, 2000)))
    while not sending.done() or len(seen) < 1200:
        await drained(
            under.log, after, count=7, take=lambda piece: seen.extend(r.event_id for r in wire.decode(piece.payloads))
        )
        await asyncio.sleep(0)
    await sending
    assert sorted(seen) == sorted(f"e{first + n}" for first in (0, 1000, 2000) for n in range(400))
