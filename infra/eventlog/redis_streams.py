"""redis_streams: the event log as one Redis stream a shard, whose append refuses what a producer sends twice."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS, Record
from infra.eventlog import records as wire
from infra.eventlog.protocol import Appended, Extent, LogLost, Slice, Term, Terms
from infra.eventlog.scripts import Script, executed, once

_APPEND = """#!lua
local stream, tip_key = KEYS[1], KEYS[2]
local horizon = tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local tip = redis.call('GET', tip_key)
if not tip then redis.call('SET', KEYS[5], ARGV[2] .. ':1') end
tip = tonumber(tip or '0')
local out = {}
for at = 3, #ARGV, 2 do
  local name = ARGV[at]
  local one = tonumber(redis.call('HGET', KEYS[3], name) or '0')
  local other = tonumber(redis.call('HGET', KEYS[4], name) or '0')
  local before = math.max(one, other)
  if before > 0 and tip + 1 - before <= horizon then
    out[#out + 1] = -before
  else
    tip = tip + 1
    local half = KEYS[3 + math.floor(tip / horizon) % 2]
    if tip % horizon == 0 then redis.call('UNLINK', half) end
    local offset = string.format('%.0f', tip)
    redis.call('XADD', stream, offset .. '-' .. now_ms, 'r', ARGV[at + 1])
    redis.call('HSET', half, name, offset)
    out[#out + 1] = tip
  end
end
redis.call('SET', tip_key, string.format('%.0f', tip))
return out
"""
# Without allow-oom: with memory full the whole script is refused before its first write, so nothing is half done.
# An entry's id is `<offset>-<milliseconds>`: offsets without holes, and when the log took it. What was seen lies in two halves of
# `horizon` offsets each; the older one is dropped when its turn comes again, so that at least `horizon` are remembered.

_BEGIN_TERM = Script("""#!lua
local tip = redis.call('GET', KEYS[1])
if not tip then return end
local first, kept, newest = string.format('%.0f', tip + 1), {}, ''
for id, from in string.gmatch(redis.call('GET', KEYS[2]) or '', '(%w+):(%d+)') do
  kept[#kept + 1], newest = id .. ':' .. from, from
end
if newest == first then return end
while #kept > 31 do table.remove(kept, 1) end
kept[#kept + 1] = ARGV[1] .. ':' .. first
redis.call('SET', KEYS[2], table.concat(kept, ' '))
""")
# Redis forgets scripts when it ends. So a server that does not know the append has started since the last one, perhaps without the
# newest of what it had: before it is told the append, a new term begins behind what it has. One that took no record stays. That
# it knows another log's append says nothing: each log's script is of its own, by a comment.


@dataclass(frozen=True, slots=True)
class StreamLayout:
    """Which keys the log uses, by shard; all of one shard must share a cluster slot. seen: also by half, 0 or 1.

    horizon: offsets of a shard within which a record that is sent twice is found.
    """

    stream: Callable[[int], str]
    tip: Callable[[int], str]
    terms: Callable[[int], str]
    seen: Callable[[int, int], str]
    horizon: int


class RedisStreamLog:
    """An EventLog."""

    finds_duplicates = True

    def __init__(self, client: redis.asyncio.Redis, layout: StreamLayout) -> None:
        """client: for this log alone, for its XRANGE answers lose their form; it is closed with the log."""
        self._client = client
        self._layout = layout
        whose = f"{cast(Any, client).get_connection_kwargs().get('db', 0)} {layout.tip(0)}"
        self._script = Script(f"{_APPEND}-- {whose.encode().hex()}\n")
        client.set_response_callback("XRANGE", _as_it_is)  # type: ignore[arg-type]  # its protocol wants a name for `reply` that redis-py itself does not use

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """See EventLog: one call a shard, all in one round trip."""
        by_shard: dict[int, list[int]] = {}
        for number, record in enumerate(records):
            by_shard.setdefault(record.shard, []).append(number)
        if not by_shard:
            return []
        layout, term = self._layout, new_term()
        calls: list[tuple[list[str], list[str | bytes | int]]] = []
        for shard, numbers in by_shard.items():
            keys = [layout.stream(shard), layout.tip(shard), layout.seen(shard, 0), layout.seen(shard, 1)]
            keys.append(layout.terms(shard))
            args: list[str | bytes | int] = [layout.horizon, term]
            for number in numbers:
                args += (records[number].duplicate_key, wire.encode(records[number]))
            calls.append((keys, args))

        def build(pipe: Any) -> None:
            for keys, args in calls:
                self._script.call(pipe, keys, args)

        try:
            replies = await self._appended(build)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(
                f"The event log did not take {len(records)} record(s): {error}.",
                mend="Send the events again with the same event_id; one that was taken counts once.",
            ) from error
        out: dict[int, Appended] = {}
        for (shard, numbers), offsets in zip(by_shard.items(), replies, strict=True):
            for number, offset in zip(numbers, offsets, strict=True):
                out[number] = Appended(shard, abs(offset), duplicate=offset < 0)
        return [out[number] for number in range(len(records))]

    async def read(self, after: Mapping[int, int], *, count: int) -> list[Slice]:
        """See EventLog."""
        pipe = self._client.pipeline(transaction=False)
        for shard, offset in after.items():
            # first: what the tip counts was there to be read when the range was
            pipe.execute_command("MGET", self._layout.tip(shard), self._layout.terms(shard))
            pipe.execute_command("XRANGE", self._layout.stream(shard), f"{offset + 1}-0", "+", "COUNT", count)
        try:
            replies = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The event log cannot be read: {error}.", mend="Run: make status") from error
        found = []
        for at, (shard, offset) in enumerate(after.items()):
            tip, terms = _standing(replies[2 * at])
            entries = cast("list[tuple[bytes, list[bytes]]]", replies[2 * at + 1])
            if entries or tip != offset:
                found.append(_slice(shard, offset, tip, terms, entries))
        return [piece for piece in found if piece.offsets]

    async def extents(self, shards: Sequence[int]) -> dict[int, Extent]:
        """See EventLog."""
        pipe = self._client.pipeline(transaction=False)
        for shard in shards:
            # first: what the tip counts was there when the first entry was looked for
            pipe.execute_command("MGET", self._layout.tip(shard), self._layout.terms(shard))
            pipe.execute_command("XRANGE", self._layout.stream(shard), "-", "+", "COUNT", 1)
        replies = await self._execute(pipe)
        out = {}
        for at, shard in enumerate(shards):
            (tip, terms), entries = _standing(replies[2 * at]), replies[2 * at + 1]
            out[shard] = Extent(_split(entries[0][0])[0] if entries else tip + 1, tip, terms)
        return out

    async def offset_before(self, shard: int, moment: datetime) -> int:
        """See EventLog; found by bisection, for time rises with the offset."""
        extent = (await self.extents([shard]))[shard]
        moment_ms = int(moment.timestamp() * 1000)
        low, high = extent.first - 1, extent.tip
        while low < high:
            middle = (low + high + 1) // 2
            pipe = self._client.pipeline(transaction=False)
            pipe.execute_command("XRANGE", self._layout.stream(shard), f"{middle}-0", "+", "COUNT", 1)
            ((found,),) = [await self._execute(pipe)]
            if found and _split(found[0][0])[1] < moment_ms:
                low = middle
            else:
                high = middle - 1
        return low

    async def trim(self, shard: int, *, upto: int) -> None:
        """See EventLog."""
        pipe = self._client.pipeline(transaction=False)
        pipe.xtrim(self._layout.stream(shard), minid=f"{upto + 1}-0", approximate=False)
        await self._execute(pipe)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def _appended(self, build: Callable[[Any], None]) -> list[Any]:
        try:
            return await once(self._client, build)
        except NoScriptError:
            layout, term = self._layout, new_term()

            def begin(pipe: Any) -> None:
                for shard in range(SHARDS):
                    _BEGIN_TERM.call(pipe, [layout.tip(shard), layout.terms(shard)], [term])

            await executed(self._client, begin, _BEGIN_TERM)
            return await executed(self._client, build, self._script)

    async def _execute(self, pipe: Any) -> list[Any]:
        try:
            return cast("list[Any]", await pipe.execute())
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The event log does not answer: {error}.", mend="Run: make status") from error


def new_term() -> str:
    """A name that no term has."""
    return secrets.token_hex(5)


def _standing(reply: list[bytes | None]) -> tuple[int, Terms]:
    """Of a shard: its tip and its terms."""
    tip, terms = reply
    return int(tip or 0), _terms(terms or b"")


@functools.lru_cache(maxsize=4 * SHARDS)
def _terms(said: bytes) -> Terms:
    pairs = (one.rpartition(":") for one in said.decode().split())
    return tuple(Term(name, int(first)) for name, _, first in pairs)


def _as_it_is(reply: Any, **options: Any) -> Any:
    """Entries stay lists: making each a tuple and a dict would cost more than all else that is done with it."""
    return reply


def _slice(shard: int, after: int, tip: int, terms: Terms, entries: Sequence[tuple[bytes, list[bytes]]]) -> Slice:
    """Offsets have no holes: whatever is missing behind `after` is lost. What came after the tip was asked for is left to the
    next read, for it may be of a term that is not among these."""
    mend = (
        "Events are lost. Build the state anew from the archive (python -m spark_jobs.nearline.replay), or accept the loss: "
        "python -m infra.nearline skip --shard N --reason WHY"
    )
    if tip < after:
        raise LogLost(f"Shard {shard} of the log ends at {tip}; it was read up to {after} before.", mend=mend)
    first = _split(entries[0][0])[0] if entries else tip + 1
    if first != after + 1:
        raise LogLost(f"Shard {shard} of the log begins at {first}; wanted is {after + 1}.", mend=mend)
    upto = after + len(entries)
    last = _split(entries[-1][0])[0] if entries else upto
    if last != upto:
        raise LogLost(f"Shard {shard} of the log has {len(entries)} records from {first} to {last}.", mend=mend)
    if upto > tip:
        upto, entries = tip, entries[: tip - after]
    return Slice(
        shard=shard,
        after=after,
        upto=upto,
        offsets=range(after + 1, upto + 1),
        logged_ms=[int(entry[0].partition(b"-")[2]) for entry in entries],
        payloads=[entry[1][1] for entry in entries],
        terms=terms,
    )


def _split(entry_id: bytes) -> tuple[int, int]:
    """(offset, milliseconds) of an entry's id."""
    offset, _, logged_ms = entry_id.partition(b"-")
    return int(offset), int(logged_ms)
