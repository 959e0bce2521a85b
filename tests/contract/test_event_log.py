"""What every event log must do; run against each one that there is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
import redis
import redis.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.events import Event
from infra.contracts.ids import ItemId, UserId
from infra.eventlog.protocol import EventLog
from infra.eventlog.redis_streams import RedisStreamLog, StreamLayout
from infra.snapshots.connection import serving_client
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess, new_redis

START = datetime(2024, 6, 1, 12, tzinfo=UTC)
LAYOUT = StreamLayout(
    stream="log",
    seen=lambda event_id: f"seen:{event_id}",
    recent=lambda user_id: f"recent:{user_id}",
    counts=lambda event_type: event_type != "view",
    recent_items=3,
)


def event(number: int, *, user: str = "u1", item: str = "", kind: str = "click", value: float | None = None) -> Event:
    return Event(
        event_id=f"e{number}",
        user_id=UserId(user),
        item_id=ItemId(item or f"i{number}"),
        event_type=kind,
        event_time=START + timedelta(seconds=number),
        value=value,
    )


@dataclass
class Under:
    """A log under test and the Redis behind it."""

    log: EventLog
    client: redis.asyncio.Redis
    raw: redis.Redis

    async def all(self) -> list[Event]:
        return [row.event for row in await self.log.read(after="0-0", count=10_000)]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest_asyncio.fixture
async def under(server: RedisProcess) -> AsyncIterator[Under]:
    raw = redis.Redis.from_url(server.url)
    raw.flushall()
    client = serving_client(server.url, timeout_s=5.0)
    yield Under(RedisStreamLog(client, LAYOUT), client, raw)
    await client.aclose()
    raw.close()


async def test_events_are_read_back_as_they_were_sent_in_their_order(under: Under) -> None:
    sent = [event(1), event(2, kind="rating", value=4.5), event(3, value=-0.1), event(4, user="a:{}\n\x00é", item="\n")]
    appended = await under.log.append(sent)
    assert [row.duplicate for row in appended] == [False] * 4
    read = await under.log.read(after="0-0", count=10)
    assert [row.event for row in read] == sent
    assert [row.position for row in read] == [row.position for row in appended]


async def test_reading_goes_on_after_a_position_and_stops_at_the_count(under: Under) -> None:
    await under.log.append([event(number) for number in range(10)])
    first = await under.log.read(after="0-0", count=4)
    rest = await under.log.read(after=first[-1].position, count=100)
    assert [row.event.event_id for row in first + rest] == [f"e{number}" for number in range(10)]
    assert await under.log.read(after=rest[-1].position, count=5) == []


async def test_nothing_appended_is_nothing_written(under: Under) -> None:
    assert await under.log.append([]) == []
    assert await under.all() == []


@pytest.mark.parametrize("position", ["", "0", "newest", "(1-0", "-", "$", "1-0\n", "x" * 5000])
async def test_what_is_no_position_is_refused(position: str, under: Under) -> None:
    with pytest.raises(InvalidRequest, match="is not a position of this log"):
        await under.log.read(after=position, count=1)


async def test_an_event_sent_again_stands_once_at_the_place_it_was_first_taken(under: Under) -> None:
    first = await under.log.append([event(1), event(2)])
    again = await under.log.append([event(2), event(3), event(3)])
    assert [row.duplicate for row in again] == [True, False, True]
    assert again[0].position == first[1].position
    assert again[1].position == again[2].position
    assert [row.event_id for row in await under.all()] == ["e1", "e2", "e3"]


async def test_of_many_producers_that_retry_at_the_same_moment_each_event_is_taken_once(under: Under) -> None:
    batches = [[event(number) for number in range(start, start + 10)] for start in range(0, 60, 5)]
    answers = await asyncio.gather(*(under.log.append(batch) for batch in batches for _ in range(3)))
    assert sorted(row.event_id for row in await under.all()) == sorted(f"e{number}" for number in range(65))
    assert sum(not row.duplicate for answer in answers for row in answer) == 65


async def test_with_memory_full_none_of_several_is_taken_and_later_all_are(under: Under) -> None:
    await under.log.append([event(0)])
    used = int(under.raw.info("memory")["used_memory"])
    under.raw.config_set("maxmemory", used - 1)
    try:
        with pytest.raises(DependencyUnavailable, match="did not take 5 event"):
            await under.log.append([event(number) for number in range(1, 6)])
        assert [row.event_id for row in await under.all()] == ["e0"]
        assert under.raw.keys("seen:e[1-5]") == []
    finally:
        under.raw.config_set("maxmemory", 0)
    assert not any(row.duplicate for row in await under.log.append([event(number) for number in range(1, 6)]))
    assert len(await under.all()) == 6


async def test_a_log_that_is_away_says_so_and_takes_none() -> None:
    server = new_redis()
    client = serving_client(server.url, timeout_s=1.0)
    log = RedisStreamLog(client, LAYOUT)
    server.kill()
    with pytest.raises(DependencyUnavailable, match="Send them again with the same event_id"):
        await log.append([event(1)])
    with pytest.raises(DependencyUnavailable, match="cannot be read"):
        await log.read(after="0-0", count=1)
    server.start()
    await log.append([event(1)])
    assert [row.event.event_id for row in await log.read(after="0-0", count=9)] == ["e1"]
    await client.aclose()
    server.stop()


async def test_a_row_that_headgate_did_not_write_is_not_taken_for_an_event(under: Under) -> None:
    under.raw.xadd("log", {"who": "somebody else"})
    with pytest.raises(ContractViolation, match="a row that headgate did not write"):
        await under.all()


async def test_the_newest_items_that_count_are_kept_for_the_next_request(under: Under) -> None:
    sent = [event(5), event(1), event(2, kind="view"), event(3), event(4), event(6, item="i3")]
    await under.log.append(sent)
    assert under.raw.zrevrange("recent:u1", 0, -1) == [b"i3", b"i5", b"i4"]
    assert 0 < under.raw.ttl("recent:u1") <= 7 * 86_400


async def test_an_item_seen_earlier_again_keeps_its_latest_time(under: Under) -> None:
    await under.log.append([event(9, item="i1"), event(8, item="i2"), event(1, item="i1")])
    assert under.raw.zrevrange("recent:u1", 0, -1) == [b"i1", b"i2"]


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(user=_TEXT, item=_TEXT, kind=_TEXT, value=st.none() | st.floats(allow_nan=False, allow_infinity=False))
@hypothesis_settings(
    max_examples=sized(60, full=1200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_and_any_number_come_back_as_they_were(
    server: RedisProcess, user: str, item: str, kind: str, value: float | None
) -> None:
    async def there_and_back() -> None:
        client = serving_client(server.url, timeout_s=5.0)
        await client.flushall()
        log = RedisStreamLog(client, LAYOUT)
        sent = Event("e", UserId(user), ItemId(item), kind, START + timedelta(microseconds=123_457), value)
        await log.append([sent])
        (back,) = await log.read(after="0-0", count=2)
        assert back.event == sent
        await client.aclose()

    asyncio.run(there_and_back())
