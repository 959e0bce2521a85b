"""Boards as a service keeps them: right counts at known offsets, merged over all shards, and the last one while Redis is away."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS, shard_of
from infra.contracts.features import BOARD, Deltas
from infra.contracts.ids import ApplicationName
from infra.nearline.boards import NO_BOARD, BoardReader, ShardBoard, merged_board
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import RedisProcess
from tests.unit.bentos.ranking.stream import PLAN, Stream

_HOUR_US = 3_600_000_000


def now_us() -> int:
    return time.time_ns() // 1000


@pytest_asyncio.fixture
async def stream(redis_url: str) -> AsyncIterator[Stream]:
    client = serving_client(redis_url, timeout_s=5.0)
    stream = Stream(client, ApplicationName(f"t{uuid.uuid4().hex[:10]}"))
    yield stream
    await stream.forget()
    await client.aclose()


async def test_before_anything_happened_the_board_is_empty_and_its_offsets_are_none_counted(stream: Stream) -> None:
    reader = await stream.board()
    assert reader.current.offsets == (0,) * SHARDS
    assert dict(reader.current.lists) == {"trending_clicks": (), "trending_purchases": (), "newest_items": ()}


async def test_counts_are_merged_over_all_shards_best_first_and_ties_by_id(stream: Stream) -> None:
    wanted = Counter({f"i{number}": 1 + number % 7 for number in range(60)})
    for item, times in wanted.items():
        await stream.clicked(item, times)
    await stream.clicked("i1", 3, what="purchase")
    await stream.clicked("i2", 5, what="view")
    await stream.clicked("i3", 9, ago_s=3 * 3600)
    wanted["i1"] += 3
    reader = await stream.board()
    assert reader.current.list("trending_clicks") == tuple(sorted(wanted.items(), key=lambda pair: (-pair[1], pair[0])))
    assert reader.current.list("trending_purchases") == (("i1", 3),)
    assert len({shard_of("item", item) for item in wanted}) == SHARDS


async def test_the_board_is_made_again_from_records_up_to_its_offsets_and_its_moment(stream: Stream) -> None:
    for number in range(40):
        await stream.clicked(f"i{number}", 1 + number % 3)
    for number in range(5):
        await stream.added(f"new{number}", title=f"Title {number}", genres="Drama|Music")
    board = (await stream.board()).current
    await stream.clicked("i1", 50)
    shards = []
    for shard, offset in enumerate(board.offsets):
        deltas: Deltas = {}
        own = [record for at, record in stream.records if record.shard == shard and at <= offset]
        PLAN.accumulate(own, deltas)
        about = {name: state for (kind, name), state in deltas.items() if kind == "item" and name != BOARD}
        shards.append(ShardBoard(offset, deltas.get(("item", BOARD), {}), about))
    assert merged_board(PLAN, "item", shards, board.now_us) == board
    assert sum(board.offsets) == len(stream.records) - 100, "50 clicks later, each of a user and of an item"


async def test_offset_and_board_are_of_one_moment_while_a_worker_counts(stream: Stream) -> None:
    """All clicks are of one item by one user: then the count tells the offset of its shard, whenever one looks."""
    busy = shard_of("item", "i1")
    records_a_click = 2 if shard_of("user", "x0") == busy else 1
    done = asyncio.Event()

    async def work() -> None:
        for _ in range(60):
            await stream.clicked("i1", 1)
        done.set()

    worker = asyncio.create_task(work())
    seen: set[int] = set()
    reader = BoardReader(stream.client, stream.application, PLAN, kind="item")
    while not done.is_set():
        await reader.refresh(now_us())
        count = dict(reader.current.list("trending_clicks")).get("i1", 0)
        assert reader.current.offsets[busy] == count * records_a_click
        seen.add(count)
    await worker
    assert len(seen) > 2, "it was read while it was counted"


async def test_what_many_took_an_hour_ago_falls_off_the_board_while_nothing_happens(stream: Stream) -> None:
    await stream.clicked("i1", 4)
    reader = await stream.board()
    assert reader.current.list("trending_clicks") == (("i1", 4),)
    await reader.refresh(now_us() + 2 * _HOUR_US)
    assert reader.current.list("trending_clicks") == ()


async def test_a_new_item_comes_with_what_is_said_of_it_in_the_read_that_finds_it(stream: Stream) -> None:
    await stream.added("n1", ago_s=90, title="One", creator="somebody", genres="Drama|Music")
    await stream.added("n2", ago_s=30, title="Two: a title", genres="Nature")
    await stream.clicked("i1")
    board = (await stream.board()).current
    assert [item for item, _ in board.list("newest_items")] == ["n2", "n1"]
    assert dict(board.about) == {
        "n1": {"title": ("One",), "creator": ("somebody",), "genres": ("Drama|Music",)},
        "n2": {"title": ("Two: a title",), "creator": (), "genres": ("Nature",)},
    }


async def test_only_the_newest_are_kept_however_many_came(stream: Stream) -> None:
    for number in range(70):
        await stream.added(f"n{number}", ago_s=1000 - number, title=f"Title {number}")
    newest = (await stream.board()).current.list("newest_items")
    assert [item for item, _ in newest] == [f"n{number}" for number in range(69, 19, -1)]


async def test_while_redis_is_away_the_last_board_stays_and_says_how_old_it_is(own_redis: RedisProcess) -> None:
    client = serving_client(own_redis.url, timeout_s=2.0)
    stream = Stream(client, ApplicationName("ranking"))
    await stream.clicked("i1", 2)
    reader = await stream.board()
    before = reader.current
    own_redis.kill()
    with pytest.raises(DependencyUnavailable, match="boards cannot be read"):
        await reader.refresh(now_us())
    age_s = reader.age_s
    assert reader.current is before and age_s is not None and age_s > 0
    own_redis.start()
    await reader.refresh(now_us())
    assert reader.current.list("trending_clicks") == (("i1", 2),) and reader.current is not before
    await client.aclose()


async def test_the_background_reader_sees_what_happens_and_survives_redis(own_redis: RedisProcess) -> None:
    client = serving_client(own_redis.url, timeout_s=2.0)
    reader = BoardReader(client, ApplicationName("ranking"), PLAN, kind="item")
    assert reader.current is NO_BOARD and reader.age_s is None
    own_redis.kill()
    await reader.start()
    try:
        own_redis.start()
        await Stream(client, ApplicationName("ranking")).clicked("i7", 3)
        async with asyncio.timeout(30):
            while not reader.current.list("trending_clicks"):
                await asyncio.sleep(0.05)
        assert reader.current.list("trending_clicks") == (("i7", 3),)
    finally:
        await reader.stop()
    await client.aclose()
