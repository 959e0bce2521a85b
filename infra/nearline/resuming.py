"""resuming: a log in Redis that came back without its memory goes on behind what was read of it: no offset is used twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.ids import ApplicationName
from infra.eventlog import records as wire
from infra.eventlog.protocol import EventLog, Extent
from infra.eventlog.redis_streams import new_term
from infra.eventlog.terms import holds_upto
from infra.nearline.archive import read_archive, read_upto
from infra.nearline.counting import Horizon
from infra.snapshots import keys
from infra.snapshots.storage import Storage

_MOVE = """#!lua
local horizon, tip = tonumber(ARGV[1]), tonumber(ARGV[2])
local entries = redis.call('XRANGE', KEYS[1], ARGV[3], '+')
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[3 + math.floor(ARGV[i + 1] / horizon) % 2], ARGV[i], ARGV[i + 1]) end
local moved = 0
for _, entry in ipairs(entries) do
  local record = cjson.decode(entry[2][2])
  local name = record[1] .. ':' .. record[2] .. ':' .. record[5]
  local before = math.max(tonumber(redis.call('HGET', KEYS[3], name) or '0'), tonumber(redis.call('HGET', KEYS[4], name) or '0'))
  if before == 0 or tip + 1 - before > horizon then
    tip = tip + 1
    moved = moved + 1
    local half = KEYS[3 + math.floor(tip / horizon) % 2]
    if tip % horizon == 0 then redis.call('UNLINK', half) end
    local offset = string.format('%.0f', tip)
    redis.call('XADD', KEYS[1], offset .. string.match(entry[1], '-.*'), 'r', entry[2][2])
    redis.call('HSET', half, name, offset)
  end
end
redis.call('SET', KEYS[2], string.format('%.0f', tip))
redis.call('SET', KEYS[5], ARGV[4])
return moved
"""
# As the log's own append does it, in one call: services append all the while.


async def resume(
    log: EventLog,
    client: redis.asyncio.Redis,
    application: ApplicationName,
    archive: Storage,
    shard: int,
    *,
    upto: int,
    horizon: int,
) -> int:
    """Let the shard's next record come behind `upto`, the archive's end; what was sent twice since is found as before.

    Records that came since the loss move behind it; records that the log still has from before it go, for the archive has them.
    Returns how many moved. A log that has what is archived is left alone. Raises DependencyUnavailable.
    """
    extent = (await log.extents([shard]))[shard]
    term = (await asyncio.to_thread(read_upto, archive, shard)).term
    kept = holds_upto(extent.terms, term, extent.tip)
    if kept >= upto:
        return 0
    if not term and not await _is_older(log, archive, shard, extent):
        kept = 0
    halves = await asyncio.to_thread(seen_before, archive, shard, upto=upto, horizon=horizon)
    return await move(
        client, application, shard, since=kept + 1, behind=upto, horizon=horizon, seen=halves, terms=[term]
    )


async def move(
    client: redis.asyncio.Redis,
    application: ApplicationName,
    shard: int,
    *,
    since: int,
    behind: int,
    horizon: int,
    seen: Sequence[Mapping[str, int]],
    terms: Iterable[str],
) -> int:
    """The records from the offset `since` on go behind `behind`, and so does all that comes; those before it are dropped.

    seen: the duplicate keys of before, in two halves. terms: those in which somebody has read up to `behind`; the log has them
    from then on as if it had them whole. Returns how many moved. Run again, it does the same. Raises DependencyUnavailable.
    """
    names = [
        keys.event_log(application, shard),
        keys.event_log_tip(application, shard),
        *(keys.event_log_seen(application, shard, half) for half in (0, 1)),
        keys.event_log_terms(application, shard),
    ]
    known = " ".join([*(f"{term}:1" for term in set(terms) if term), f"{new_term()}:{behind + 1}"])
    pairs = [part for half in seen for pair in half.items() for part in pair]
    try:
        args = [horizon, behind, f"{since}-0", known, *pairs]
        return cast(int, await client.register_script(_MOVE)(keys=names, args=args))
    except (RedisError, OSError, TimeoutError) as error:
        raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.") from error


def seen_before(archive: Storage, shard: int, *, upto: int, horizon: int) -> tuple[dict[str, int], dict[str, int]]:
    """The duplicate keys of the last `horizon` offsets and where each stands, in the two halves that remember them."""
    halves: tuple[dict[str, int], dict[str, int]] = ({}, {})
    turns = Horizon(horizon)
    for piece in read_archive(archive, shard, after=max(upto - horizon, 0), upto=upto):
        for offset, record in zip(piece.offsets, wire.decode(piece.payloads), strict=True):
            halves[turns.half(offset)][record.duplicate_key] = offset
    return halves


async def _is_older(log: EventLog, archive: Storage, shard: int, extent: Extent) -> bool:
    """Whether what the log holds is of the time before the loss: then the archive has the same at the same offset."""
    if extent.first > extent.tip:
        return False
    (held,) = await log.read({shard: extent.first - 1}, count=1)
    archived = await asyncio.to_thread(list, read_archive(archive, shard, after=extent.first - 1, upto=extent.first))
    return [payload for piece in archived for payload in piece.payloads] == list(held.payloads)
