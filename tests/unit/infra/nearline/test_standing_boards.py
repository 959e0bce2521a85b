"""What stands, on the boards that a service reads: for years, through cleaning and expiry; and a reader that waits for a record."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest_asyncio

from infra.catalog.events.ranking import RANKING_EVENTS
from infra.contracts.events import Event, shard_of
from infra.contracts.features import BOARD
from infra.contracts.ids import ApplicationName
from infra.nearline.boards import NO_BOARD, Board, BoardReader, said_anew
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.unit.bentos.ranking.stream import PLAN, Stream

_YEAR_S = 365 * 86_400


@pytest_asyncio.fixture
async def stream(redis_url: str) -> AsyncIterator[Stream]:
    client = serving_client(redis_url, timeout_s=5.0)
    stream = Stream(client, ApplicationName(f"t{uuid.uuid4().hex[:10]}"))
    yield stream
    await stream.forget()
    await client.aclose()


def changed(item: str, *, ago_s: float = 1.0, **said: object) -> Event:
    now = datetime.now(UTC)
    at = (now - timedelta(seconds=ago_s)).isoformat()
    return RANKING_EVENTS.parse({"event_type": "item_changed", "item_id": item, "event_time": at, **said}, now=now)


async def test_what_stands_comes_from_all_shards_and_may_come_back(stream: Stream) -> None:
    for number in range(60):
        await stream.happened(changed(f"i{number}", ago_s=9, available=0, title=f"T {number}"))
    await stream.happened(changed("i7", ago_s=5, available=1), changed("i8", ago_s=20, available=1, title="older"))
    reader = await stream.board()
    standing = reader.current.standing
    assert set(standing["unavailable"]) == {f"i{number}" for number in range(60)} - {"i7"}
    assert (standing["changed_title"]["i8"], standing["changed_creator"]) == ("T 8", {})
    await stream.clicked("i1", 3)
    await reader.refresh(time.time_ns() // 1000)
    assert reader.current.standing is standing, "nothing else was said"
    await stream.happened(changed("i8", available=1))
    await reader.refresh(time.time_ns() // 1000)
    assert "i8" not in reader.current.standing["unavailable"]


async def test_a_board_tells_of_whom_something_else_was_said_since_any_earlier_one(stream: Stream) -> None:
    await stream.happened(*(changed(f"i{number}", ago_s=9, title="T") for number in range(5)))
    reader = await stream.board()
    boards = [NO_BOARD, reader.current]
    for event in (changed("i1", ago_s=3, available=0), changed("i2", ago_s=3, title="T"), changed("i3", title="U")):
        await stream.happened(event)
        await reader.refresh(time.time_ns() // 1000)
        boards.append(reader.current)
    for at, before in enumerate(boards):
        for now in boards[at:]:
            assert now.said_since(before) == said_anew(before.standing, now.standing)
    first, last = boards[1], boards[-1]
    assert last.said_since(first) == {"i1", "i3"}
    assert replace(last, standing={}).said_since(first) == {"i1", "i3"}, "told, not compared"
    assert last.said_since(Board()) == {f"i{number}" for number in range(5)}
    assert first.said_since(last) == {"i1", "i3"}, "also the other way round"


async def test_years_later_it_stands(stream: Stream) -> None:
    await stream.happened(changed("i1", available=0), changed("i2", available=0))
    await stream.happened(changed("i2", ago_s=0, available=1))
    later_us = time.time_ns() // 1000 + 10 * _YEAR_S * 1_000_000
    reader = BoardReader(stream.client, stream.application, PLAN, kind="item")
    await reader.refresh(later_us)
    assert reader.current.standing["unavailable"] == {"i1": "0"}


async def test_its_board_does_not_expire_and_nothing_else_lives_longer_for_it(stream: Stream) -> None:
    await stream.happened(changed("i1", available=0))
    await stream.added("n1", title="New")
    shard = shard_of("item", "i1")
    board = keys.nearline_state(stream.application, "item", BOARD, shard=shard)
    own = keys.nearline_state(stream.application, "item", "n1")
    assert await stream.client.ttl(board) > 10 * _YEAR_S
    assert 0 < await stream.client.ttl(own) < 8 * 86_400


async def test_who_waits_for_a_record_has_it_on_the_board(stream: Stream) -> None:
    await stream.happened(changed("i1", available=0))
    shard = shard_of("item", "i1")
    reader = BoardReader(stream.client, stream.application, PLAN, kind="item")
    assert await reader.reach(shard, 1, within_s=30)
    assert "i1" in reader.current.standing["unavailable"]
    waiting = asyncio.create_task(reader.reach(shard, 2, within_s=30))
    await stream.happened(changed("i1", ago_s=0, available=1))
    assert await waiting and "i1" not in reader.current.standing["unavailable"]


async def test_who_waits_in_vain_is_told(stream: Stream) -> None:
    await stream.happened(changed("i1", available=0))
    reader = await stream.board()
    assert not await reader.reach(shard_of("item", "i1"), 2, within_s=0.1)


async def test_many_that_wait_together_read_few_times(stream: Stream) -> None:
    reader = await stream.board()
    boards = {id(reader.current): reader.current}
    await stream.happened(*(changed(f"i{number}", available=0) for number in range(100)))

    async def wait(number: int) -> None:
        shard = shard_of("item", f"i{number}")
        assert await reader.reach(shard, 1, within_s=30)
        boards[id(reader.current)] = reader.current

    await asyncio.gather(*(wait(number) for number in range(100)))
    assert len(boards) == 2
