"""What terms tell of a log: how far it still is the one that was read; and what is read is of the terms that come with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from infra.eventlog.protocol import Extent, LogLost, Term
from infra.eventlog.redis_streams import RedisStreamLog
from infra.eventlog.terms import Read, holds_upto, may_read_on, require_same
from infra.snapshots.connection import serving_client
from tests.unit.infra.eventlog.scenes import layout, record

TERMS = (Term("a", 1), Term("b", 11), Term("c", 21))


@pytest.mark.parametrize(
    ("term", "upto"),
    [("a", 10), ("b", 20), ("c", 25), ("gone", 0), ("", 25)],
    ids=["first", "middle", "last", "no", "?"],
)
def test_a_log_holds_a_term_up_to_where_the_next_began(term: str, upto: int) -> None:
    assert holds_upto(TERMS, term, 25) == upto
    for offset in (0, upto - 1, upto, upto + 1):
        assert may_read_on(Extent(1, 25, TERMS), Read(offset, term)) == (0 <= offset <= upto)
    if term:
        assert require_same(3, TERMS, Read(min(upto, 25), term)) == "c"


def test_what_was_read_beyond_a_terms_end_is_of_another_log() -> None:
    with pytest.raises(
        LogLost, match=r"Shard 3 of the log is another one beyond 10; it was read up to 11 before\."
    ) as raised:
        require_same(3, TERMS, Read(11, "a"))
    assert "python -m infra.nearline skip" in raised.value.mend
    assert holds_upto((), "a", 25) == 0, "a log that knows no terms has none of a's"


class OneByOne:
    """A pipeline whose commands reach Redis one by one, with something in between."""

    def __init__(self, client: Any, between: Callable[[], Awaitable[object]]) -> None:
        self._client = client
        self._between = between
        self._commands: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any) -> None:
        self._commands.append(args)

    async def execute(self) -> list[Any]:
        out = []
        for args in self._commands:
            out.append(await self._client.execute_command(*args))
            await self._between()
        return out


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = serving_client(redis_url, timeout_s=5.0)
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


async def test_a_term_that_begins_within_a_read_is_no_loss(
    client: redis.asyncio.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies between two commands of a reader: what it gives out is of the terms that it gives with it."""
    writer, reader = (RedisStreamLog(serving_client(redis_url, timeout_s=5.0), layout()) for _ in range(2))
    numbers = iter(range(100))

    async def begin_a_term() -> None:
        await client.script_flush()
        await writer.append([record(next(numbers)), record(next(numbers))])

    await begin_a_term()
    monkeypatch.setattr(reader._client, "pipeline", lambda **_: OneByOne(reader._client, begin_a_term))
    known = Read(0, "")
    for _ in range(10):
        for piece in await reader.read({3: known.offset}, count=3):
            known = Read(piece.upto, require_same(3, piece.terms, known))
        extent = (await reader.extents([3]))[3]
        require_same(3, extent.terms, Read(extent.tip, extent.terms[-1].id))
    assert known.offset > 20 and len(extent.terms) > 20
    await writer.close()
    await reader.close()
