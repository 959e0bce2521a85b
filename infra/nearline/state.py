"""state: the nearline state in Redis; the fence, the deltas and the offset are one server-side call, so each record counts once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgpack
import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable, HeadgateError
from infra.contracts.events import SHARDS
from infra.contracts.features import BOARD, Deltas, FeaturePlan
from infra.contracts.ids import ApplicationName
from infra.eventlog.scripts import Script, executed
from infra.nearline.expiry import Clock, Lately, since_boot_s
from infra.snapshots import keys

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_CLAIM = Script(f"""#!lua
{_NOW}
local held = redis.call('HMGET', KEYS[1], 'owner', 'until', 'epoch', 'offset')
if held[1] and held[1] ~= ARGV[1] and tonumber(held[2] or '0') > now then return {{0, 0, held[1]}} end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]))
if not held[4] then redis.call('HSET', KEYS[1], 'offset', '0') end
return {{epoch, tonumber(held[4] or '0'), ARGV[1]}}
""")

_RENEW = Script(f"""#!lua
{_NOW}
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[2]))
return 1
""")

_APPLY = Script(f"""#!lua
{_NOW}
local held = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return {{held[1] or '0', held[2] or '0'}} end
local call, byte, given = redis.call, string.byte, cmsgpack.unpack(ARGV[5])
for _, one in ipairs(given[3]) do
  if call('HGET', KEYS[one[1]], one[2]) == one[3] then call('HDEL', KEYS[one[1]], one[2]) end
end
local flat, from, at = given[1], 1, given[4]
while flat[from] do
  local key, n, life = KEYS[at], flat[from], flat[from + 1]
  for i = from + 2, from + 1 + n do
    local name, amount = flat[i], flat[i + n]
    if byte(name) == {ord("+")} then
      call('HINCRBY', key, name, amount)
    else
      local before = call('HGET', key, name)
      if not before or before + 0 < amount + 0 then call('HSET', key, name, amount) end
    end
  end
  if life then call('EXPIRE', key, life) end
  from, at = from + 2 + 2 * n, at + 1
end
local seen, first = given[2], #KEYS - 1
for half = 0, 1 do
  local names = seen[half + 1]
  if names[1] then redis.call('UNLINK', KEYS[first + half]) end
  for i = 2, #names, 2 do redis.call('HSET', KEYS[first + half], names[i], names[i + 1]) end
end
redis.call('HSET', KEYS[1], 'offset', ARGV[3], 'until', string.format('%.0f', now + ARGV[4]))
return false
""")
# Without allow-oom: with memory full the whole call is refused before its first write, offset included; the worker waits.
# Amounts come as text, for Lua's numbers are doubles and slow to print: HINCRBY is exact up to 2**63; raised is what Lua compares,
# milliseconds. One flat list, and a call a field: to read an entity's fields at once, to add them up here and to write them at
# once costs more than it saves (ratio 1.1), as does a table an entity.

SLACK_S = 3600
"""Beyond the longest window: how long the state of an entity lives from when its expiry is set; which is at the first event, and
at the first one after each half of this. So it outlives its last event by the longest window and half an hour."""

_FOR_EVER_S = 100 * 365 * 86_400
"""Of a board that holds what stands until something else is said."""


class Fenced(HeadgateError):
    """Another worker has taken the shard, or has moved its offset: what this one meant to write was not written."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to add to a shard's state. offset: up to which its records are counted already."""

    shard: int
    epoch: int
    offset: int


@dataclass(slots=True)
class Changes:
    """What one stretch of a shard's records does to the state.

    after, upto: the stretch. deltas: see FeaturePlan.accumulate; no entity is without a field. stale: by (kind, entity id), fields
    to drop and the values they had, in turn; one that has changed since stays. seen: for either half, whether its turn begins, and
    duplicate keys and their offsets in turn; for logs that do not find duplicates themselves.
    """

    after: int
    upto: int
    deltas: Deltas
    stale: Mapping[tuple[str, str], Sequence[str | int]] = field(default_factory=dict)
    seen: Sequence[tuple[bool, Sequence[str | int]]] = ((False, ()), (False, ()))


class StateStore:
    """Claims shards and applies changes. Each call is one round trip to the shard's own slot."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        application: ApplicationName,
        plan: FeaturePlan,
        *,
        lease_s: float = 5.0,
        clock: Clock = since_boot_s,
    ) -> None:
        """lease_s: how long a claim lasts that is neither used nor renewed. clock: see Lately."""
        self._client = client
        self._application = application
        self._lease_ms = round(lease_s * 1000)
        self._lately = Lately(SLACK_S / 2, clock)
        self._lives_s = {kind: int(plan.horizon(kind).total_seconds()) + SLACK_S for kind in plan.kinds()}
        self._boards_live_s = {kind: _FOR_EVER_S for kind in plan.kinds() if plan.keeps(kind)}

    async def claim(self, shard: int, owner: str) -> Claim | None:
        """Take a shard that nobody holds, or that `owner` held before; its epoch rises, which fences whoever wrote until now.

        None where another owner's claim has not lapsed. Raises DependencyUnavailable.
        """
        position = keys.nearline_position(self._application, shard)
        (found,) = await self._executed(lambda pipe: _CLAIM.call(pipe, [position], [owner, self._lease_ms]))
        epoch, offset, _ = cast("list[int]", found)
        return Claim(shard, epoch, offset) if epoch else None

    async def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """Keep those claims; False for one that was lost. Raises DependencyUnavailable."""
        return [bool(kept) for kept in await self._executed(lambda pipe: self._hold(pipe, claims, self._lease_ms))]

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give them up at once, so that another worker need not wait."""
        await self._executed(lambda pipe: self._hold(pipe, claims, 0))

    def _hold(self, pipe: Any, claims: Sequence[Claim], lease_ms: int) -> None:
        for claim in claims:
            position = keys.nearline_position(self._application, claim.shard)
            _RENEW.call(pipe, [position], [claim.epoch, lease_ms])

    async def apply(self, claims: Mapping[int, Claim], changes: Mapping[int, Changes]) -> dict[int, Fenced | None]:
        """For each shard: check epoch and offset, apply, move the offset: all or nothing. Fenced where it was nothing.

        Raises DependencyUnavailable: then it is not known which shards were applied; a shard's offset tells.
        """
        calls: list[tuple[list[str], list[str | bytes | int]]] = []
        expiring: dict[int, list[str]] = {}
        for shard, change in changes.items():
            names, blob, expiring[shard] = self._packed(claims[shard], change)
            calls.append((names, [claims[shard].epoch, change.after, change.upto, self._lease_ms, blob]))

        def build(pipe: Any) -> None:
            for names, args in calls:
                _APPLY.call(pipe, names, args)

        replies = cast("list[list[bytes] | None]", await self._executed(build))
        out: dict[int, Fenced | None] = {}
        for (shard, change), reply in zip(changes.items(), replies, strict=True):
            out[shard] = None
            if reply is None:
                self._lately.of(shard, claims[shard].epoch).update(expiring[shard])
            else:
                self._lately.forget(shard)
                epoch, offset = (int(part) for part in reply)
                out[shard] = Fenced(
                    f"Shard {shard} of {self._application} is at epoch {epoch}, offset {offset}; this worker has epoch "
                    f"{claims[shard].epoch}, offset {change.after}."
                )
        return out

    async def offsets(self) -> dict[int, int]:
        """Up to which offset each shard's records are counted; 0 where none were. Raises DependencyUnavailable."""
        pipe = self._client.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.hget(keys.nearline_position(self._application, shard), "offset")
        found = cast("list[bytes | None]", await self._call(pipe.execute()))
        return {shard: int(offset or 0) for shard, offset in enumerate(found)}

    async def read(self, entities: Sequence[tuple[str, str, int]]) -> list[dict[str, int]]:
        """The states of (kind, entity id, shard), each as of some moment of its own. Raises DependencyUnavailable."""
        pipe = self._client.pipeline(transaction=False)
        for kind, entity_id, shard in entities:
            pipe.hgetall(keys.nearline_state(self._application, kind, entity_id, shard=shard))
        found = cast("list[dict[bytes, bytes]]", await self._call(pipe.execute()))
        return [state_of(reply) for reply in found]

    async def seen(self, shard: int, names: Sequence[str]) -> list[int]:
        """The offset at which each duplicate key was last seen, 0: never within the horizon. Raises DependencyUnavailable."""
        pipe = self._client.pipeline(transaction=False)
        for half in (0, 1):
            pipe.hmget(keys.nearline_seen(self._application, shard, half), list(names))
        one, other = cast("list[list[bytes | None]]", await self._call(pipe.execute()))
        return [max(int(a or 0), int(b or 0)) for a, b in zip(one, other, strict=True)]

    def _packed(self, claim: Claim, change: Changes) -> tuple[list[str], bytes, list[str]]:
        """The keys of `_APPLY`, its packed argument, and those of the keys whose expiry it sets.

        Keys: position, stale entities, changed entities, two halves. Packed: of each changed entity how many fields, seconds to
        live (false: as they are), fields and amounts, all in one list; what was seen; of each stale field the number of its key,
        itself and its value; the number of the first changed key. Amounts and values are text.
        """
        application, shard = self._application, claim.shard
        prefix = keys.nearline_state(application, "", "", shard=shard)[:-1]
        known = self._lately.of(shard, claim.epoch)
        names = [keys.nearline_position(application, shard)]
        gone: list[object] = []
        for (kind, entity_id), stale in change.stale.items():
            name = f"{prefix}{kind}:{entity_id}"
            names.append(name)
            known.discard(name)  # what drops the last field drops the key
            gone += [(len(names), field, str(value)) for field, value in zip(stale[::2], stale[1::2], strict=True)]
        flat: list[object] = []
        expiring: list[str] = []
        for (kind, entity_id), fields in change.deltas.items():
            name = f"{prefix}{kind}:{entity_id}"
            names.append(name)
            flat.append(len(fields))
            if name in known:
                flat.append(False)
            else:
                life_s = self._lives_s[kind]
                flat.append(self._boards_live_s.get(kind, life_s) if entity_id == BOARD else life_s)
                expiring.append(name)
            flat += fields
            flat += map(str, fields.values())
        names += [keys.nearline_seen(application, shard, half) for half in (0, 1)]
        seen = [[fresh, *rest] for fresh, rest in change.seen]
        blob = cast(bytes, msgpack.packb([flat, seen, gone, 2 + len(change.stale)], use_bin_type=False))
        return names, blob, expiring

    async def _executed(self, build: Callable[[Any], None]) -> list[Any]:
        return cast("list[Any]", await self._call(executed(self._client, build, _CLAIM, _RENEW, _APPLY)))

    async def _call(self, awaited: Any) -> Any:
        try:
            return await awaited
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(
                f"The nearline state does not answer: {type(error).__name__}: {error}.", mend="Run: make status"
            ) from error


def state_of(reply: Mapping[bytes, bytes]) -> dict[str, int]:
    """A hash as Redis gives it, as a state."""
    return {name.decode(): int(amount) for name, amount in reply.items()}
