"""Boards from the archive are those that the service read, whichever is asked for first."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bentos.ranking.past_boards import PastBoards
from infra.contracts.decisions import Basis
from infra.contracts.errors import ContractViolation
from infra.nearline.archive import begins_after
from infra.nearline.boards import NO_BOARD, Board
from tests.fixtures.answers import HORIZON, Town, town
from tests.fixtures.redis_server import RedisProcess


def basis(board: Board) -> Basis:
    return Basis(0, None, (), True, board.now_us, board.offsets)


def changed(item: str, number: int, *, age_s: float = 0.0, **said: object) -> dict[str, object]:
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    named = {"event_id": f"c{item}{number}", "event_type": "item_changed", "item_id": item}
    return {**named, "event_time": at.isoformat(), **said}


async def act(place: Town) -> None:
    """Clicks of many, early and late, some of them twice, new items, and some that are not available for a while."""
    rng = place.rng
    for number in range(150):
        age_s = float(rng.choice([0, 0, 600, 4000]))
        await place.post([place.event(f"u{number % 9}", f"i{rng.integers(0, 25)}", age_s=age_s)])
        if number % 10 == 0:
            await place.post([place.added(f"newer {number // 10}", genres="Drama"), place.sent[0]])
            await place.post([changed(f"i{number}", number, available=number // 50 % 2, title=f"Called {number}")])
            await place.post([changed("i7", number, available=number // 10 % 2)])


async def test_every_board_that_was_read_is_made_again(own_redis: RedisProcess, tmp_path: Path) -> None:
    read: list[Board] = []
    async with town(own_redis.url, tmp_path / "store") as place, place.working("a worker"):
        task = asyncio.create_task(act(place))
        while not task.done():
            await place.boards.refresh(time.time_ns() // 1000)
            read.append(place.boards.current)
        await task
        await place.until_counted()
        for _ in range(2):  # what is new on the first is asked for by the second
            await place.boards.refresh(time.time_ns() // 1000)
        whole = place.boards.current
        await place.archive_all()
        past = PastBoards(place.archive, horizon=HORIZON)
        again = {board.now_us: past.at(basis(board)) for board in read}
        back = PastBoards(place.archive, horizon=HORIZON)
        assert {board.now_us: back.at(basis(board)) for board in reversed(read)} == again
        assert past.at(basis(whole)) == whole, "titles of new items among it"
        assert past.at(basis(NO_BOARD)) == NO_BOARD
        with pytest.raises(ContractViolation, match="ends at offset"):
            past.at(Basis(0, None, (), True, 1, (10**6,) * 16))
    assert len(whole.about) >= 10
    assert len(whole.standing["changed_title"]) == 15 and 5 <= len(whole.standing["unavailable"]) < 15
    assert len({frozenset(board.standing["unavailable"]) for board in read if board.standing}) > 3
    assert len({board.offsets for board in read}) > 3
    for board in read:
        assert again[board.now_us] == board


async def test_what_was_said_before_all_that_is_read_stands_as_if_it_had_been(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    async with town(own_redis.url, tmp_path / "store") as place, place.working("a worker"):
        twice = changed("i1", 1, available=0)
        await place.post([twice, changed("i2", 1, available=0), changed("i3", 1, title="Called three")])
        await place.post([changed("i2", 2, age_s=600, available=1), twice])
        await place.until_counted()
        await place.archive_all()
        since = datetime.now(UTC)
        await place.post([changed("i4", 1, available=0), *(place.event("u1", f"i{item}") for item in range(200))])
        await place.post([twice])
        await place.until_counted()
        await place.boards.refresh(time.time_ns() // 1000)
        read = place.boards.current
        await place.archive_all()
        past = PastBoards(place.archive, horizon=5, since=since)
        assert past.at(basis(read)) == read
        before = max(begins_after(place.archive, shard, since, horizon=0) for shard in range(16))
    assert before > 0, "some was not read"
    assert set(read.standing["unavailable"]) == {"i1", "i2", "i4"} and read.standing["changed_title"] == {
        "i3": "Called three"
    }
