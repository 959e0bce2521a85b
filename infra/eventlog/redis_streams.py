"""redis_streams: the event log as one Redis stream; the user's recent items are updated in the same atomic step."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.events import Event
from infra.contracts.ids import ItemId, UserId
from infra.eventlog.protocol import Appended, Logged

_APPEND = """#!lua
local stream, maxlen, seen_s = KEYS[1], ARGV[1], ARGV[2]
local cap, recent_s, n = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local out = {}
for i = 0, n - 1 do
  local seen, recent, at = KEYS[2 + 2 * i], KEYS[3 + 2 * i], 6 + 7 * i
  local before = redis.call('GET', seen)
  if before then
    out[#out + 1] = before
    out[#out + 1] = 1
  else
    local position = redis.call('XADD', stream, 'MAXLEN', '~', maxlen, '*', 'event_id', ARGV[at], 'user_id', ARGV[at + 1],
      'item_id', ARGV[at + 2], 'event_type', ARGV[at + 3], 'event_time_us', ARGV[at + 4], 'value', ARGV[at + 5])
    redis.call('SET', seen, position, 'EX', seen_s)
    if ARGV[at + 6] == '1' then
      redis.call('ZADD', recent, 'GT', math.floor(tonumber(ARGV[at + 4]) / 1000), ARGV[at + 2])
      redis.call('ZREMRANGEBYRANK', recent, 0, -cap - 1)
      redis.call('EXPIRE', recent, recent_s)
    end
    out[#out + 1] = position
    out[#out + 1] = 0
  end
end
return out
"""
# Without allow-oom: with memory full the whole script is refused before its first write, so nothing is half done.
# A script and not MULTI, because a retried event id must be found before anything is written.

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POSITION = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class StreamLayout:
    """Which keys the log uses and how much of each is kept.

    seen, recent: the key of an event id, of a user id. counts: whether an event type makes its item one of the user's recent
    items. max_events: the stream is trimmed to about this length.
    """

    stream: str
    seen: Callable[[str], str]
    recent: Callable[[str], str]
    counts: Callable[[str], bool]
    max_events: int = 1_000_000
    seen_for: timedelta = timedelta(days=1)
    recent_items: int = 50
    recent_for: timedelta = timedelta(days=7)


class RedisStreamLog:
    """An EventLog."""

    def __init__(self, client: redis.asyncio.Redis, layout: StreamLayout) -> None:
        self._client = client
        self._layout = layout
        self._append = client.register_script(_APPEND)

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """Take all events or none, in order; a known event id gives the position it was taken at."""
        if not events:
            return []
        layout = self._layout
        keys = [layout.stream]
        args: list[str | int] = [
            layout.max_events,
            int(layout.seen_for.total_seconds()),
            layout.recent_items,
            int(layout.recent_for.total_seconds()),
            len(events),
        ]
        for event in events:
            keys += [layout.seen(event.event_id), layout.recent(event.user_id)]
            args += [
                event.event_id,
                event.user_id,
                event.item_id,
                event.event_type,
                (event.event_time - _EPOCH) // timedelta(microseconds=1),
                "" if event.value is None else repr(event.value),
                int(layout.counts(event.event_type)),
            ]
        try:
            found = cast("list[bytes | int]", await self._append(keys=keys, args=args))
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(
                f"The event log did not take {len(events)} event(s): {error}.",
                mend="Send them again with the same event_id; an event that was taken counts once.",
            ) from error
        return [
            Appended(cast(bytes, found[at]).decode(), duplicate=bool(found[at + 1])) for at in range(0, len(found), 2)
        ]

    async def read(self, *, after: str, count: int) -> list[Logged]:
        """Up to `count` events after a position ("0-0": from the beginning). Raises InvalidRequest where it is none."""
        if POSITION.fullmatch(after) is None:
            raise InvalidRequest(f"{after[:80]!r} is not a position of this log; wanted the form 1718000000000-0.")
        try:
            found = await self._client.xrange(self._layout.stream, min=f"({after}", max="+", count=count)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The event log cannot be read: {error}.") from error
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        return [Logged(position.decode(), _event(fields)) for position, fields in rows]


def _event(fields: dict[bytes, bytes]) -> Event:
    try:
        value = fields[b"value"]
        return Event(
            event_id=fields[b"event_id"].decode(),
            user_id=UserId(fields[b"user_id"].decode()),
            item_id=ItemId(fields[b"item_id"].decode()),
            event_type=fields[b"event_type"].decode(),
            event_time=_EPOCH + timedelta(microseconds=int(fields[b"event_time_us"])),
            value=float(value) if value else None,
        )
    except (KeyError, ValueError) as error:
        raise ContractViolation(f"The event log holds a row that headgate did not write: {sorted(fields)}.") from error
