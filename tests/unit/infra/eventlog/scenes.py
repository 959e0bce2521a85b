"""scenes: short words for what the tests of the event log write: records of a chosen shard, and where they lie in Redis."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import redis

from infra.contracts.events import SHARDS, Event, Record, shard_of
from infra.contracts.ids import ApplicationName
from infra.eventlog import records as wire
from infra.eventlog.protocol import EventLog, Slice
from infra.eventlog.redis_streams import StreamLayout
from infra.snapshots import keys

RANKING = ApplicationName("ranking")
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
ALL = dict.fromkeys(range(SHARDS), 0)
"""Read from the beginning."""


def layout(horizon: int = 1000) -> StreamLayout:
    """Of real keys."""
    return StreamLayout(
        stream=lambda shard: keys.event_log(RANKING, shard),
        tip=lambda shard: keys.event_log_tip(RANKING, shard),
        terms=lambda shard: keys.event_log_terms(RANKING, shard),
        seen=lambda shard, half: keys.event_log_seen(RANKING, shard, half),
        horizon=horizon,
    )


USERS = {
    shard: next(name for name in map("u{}".format, itertools.count()) if shard_of("user", name) == shard)
    for shard in range(SHARDS)
}
"""One of each shard."""


def record(number: int, *, shard: int = 3) -> Record:
    """A user's click, as that shard keeps it; equal numbers are the same event."""
    event = Event(
        f"e{number}", "click", START + timedelta(seconds=number), {"user": USERS[shard], "item": f"i{number}"}
    )
    return event.records()[0]


def spread(numbers: range) -> list[Record]:
    """Records of all shards in turn."""
    return [record(number, shard=number % SHARDS) for number in numbers]


async def drained(log: EventLog, after: dict[int, int], *, count: int, take: Callable[[Slice], None]) -> None:
    """Read once behind those offsets, hand over each slice, and move the offsets on."""
    for piece in await log.read(after, count=count):
        assert piece.after == after[piece.shard]
        assert list(piece.offsets) == list(range(piece.after + 1, piece.upto + 1))
        assert len(piece.offsets) == len(piece.payloads) == len(piece.logged_ms) <= count
        take(piece)
        after[piece.shard] = piece.upto


async def everything(log: EventLog, *, count: int = 1000) -> dict[int, list[Record]]:
    """All records by shard, from the beginning; shards without any are left out."""
    found: dict[int, list[Record]] = {}
    after, before = dict(ALL), None
    while after != before:
        before = dict(after)
        await drained(
            log,
            after,
            count=count,
            take=lambda piece: found.setdefault(piece.shard, []).extend(wire.decode(piece.payloads)),
        )
    return found


def write_by_hand(client: redis.Redis, times_ms: Sequence[int], *, shard: int = 3) -> None:
    """One record an entry, logged at those moments."""
    pipe = client.pipeline()
    for number, logged_ms in enumerate(times_ms, start=1):
        pipe.xadd(
            keys.event_log(RANKING, shard), {"r": wire.encode(record(number, shard=shard))}, id=f"{number}-{logged_ms}"
        )
    pipe.set(keys.event_log_tip(RANKING, shard), len(times_ms))
    pipe.execute()
