"""leases: who reads which version, by Redis's own clock, so that garbage collection deletes nothing that is being read."""

from __future__ import annotations

import os
import socket
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import redis

from infra.contracts.errors import SnapshotNotLoaded
from infra.contracts.ids import ApplicationName, VersionName, alias_value, version_name
from infra.snapshots import keys

LEASE_S = 10.0
"""Of which half is left at every look, five a second; a reader that was stopped for longer may find its version deleted."""

_HOLD_S = 900.0
"""While an operator's command loads a version or flips to it; given back at its end."""

_CLAIM_S = 60.0
"""Renewed with each chunk that is deleted: a garbage collection that was killed keeps nobody waiting for longer."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function at(after_ms) return string.format('%.0f', now + after_ms) end
"""

PIN = f"""#!lua flags=allow-oom
{_NOW}
local alias = redis.call('HGETALL', KEYS[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. at(0))
local function lease(version)
  local member = version .. ' ' .. ARGV[1]
  local left = tonumber(redis.call('ZSCORE', KEYS[2], member) or '0') - now
  if left < ARGV[2] / 2 then redis.call('ZADD', KEYS[2], at(ARGV[2]), member) end
end
local named = redis.call('HMGET', KEYS[1], 'version', 'canary_version')
for place = 1, 2 do
  local version, served = named[place] or '', ARGV[2 + place]
  if version ~= '' then lease(version) end
  if served ~= '' then lease(served) end
end
return alias
"""
"""Reads the alias and, in the same step, leases what it names (live and canary) and what the reader serves, for half of that
time at least: a look that finds more left writes nothing, so that five looks a second do not fill the append-only file.

KEYS: alias, leases. ARGV: reader, milliseconds, and the two that are served: live and canary (`predictions_v12`, or nothing)."""

_HOLD = f"""#!lua flags=allow-oom
{_NOW}
local claim = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or '0')
if claim > now then return claim - now end
redis.call('ZADD', KEYS[1], at(ARGV[3]), ARGV[2] .. ' ' .. ARGV[1])
return 0
"""

_CLAIM = f"""#!lua flags=allow-oom
{_NOW}
local named = redis.call('HMGET', KEYS[1], 'version', 'canary_version')
if named[1] == ARGV[1] or named[2] == ARGV[1] then return 0 end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], at(0), '+inf')) do
  if string.sub(member, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then return 0 end
end
redis.call('ZADD', KEYS[3], at(ARGV[2]), ARGV[1])
return 1
"""
# allow-oom in all: with memory full, readers are still known, a rollback works, and garbage collection frees memory.


def reader_name() -> str:
    """One process, told apart from all others that ever were."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class Leases:
    """An operator's side: holds what he works with, and claims what he deletes. A version is never both."""

    def __init__(self, client: redis.Redis, application: ApplicationName) -> None:
        self._client = client
        self._application = application
        self._reader = reader_name()
        self._hold = client.register_script(_HOLD)
        self._claim = client.register_script(_CLAIM)

    @contextmanager
    def held(self, version: VersionName) -> Iterator[None]:
        """While the block runs nothing deletes the version. Raises SnapshotNotLoaded where that has begun already."""
        name, leases, claims = alias_value(version), keys.leases(self._application), keys.claims(self._application)
        left_ms = self._hold(keys=[leases, claims], args=[self._reader, name, int(_HOLD_S * 1000)])
        if left_ms:
            raise SnapshotNotLoaded(
                f"{self._application}/{version} is being deleted from Redis by garbage collection.",
                mend=f"Run it again in {left_ms / 1000:.0f} s.",
            )
        try:
            yield
        finally:
            self._client.zrem(leases, f"{name} {self._reader}")

    def claim(self, version: VersionName) -> bool:
        """Take (or renew) the right to delete a version; False where it is live, a canary, or leased."""
        names = (keys.alias, keys.leases, keys.claims)
        wanted = [name(self._application) for name in names]
        return bool(self._claim(keys=wanted, args=[alias_value(version), int(_CLAIM_S * 1000)]))

    def release(self, version: VersionName) -> None:
        """Give the claim back."""
        self._client.zrem(keys.claims(self._application), alias_value(version))

    def readers(self) -> Counter[VersionName]:
        """How many read each version now."""
        seconds, micros = self._client.time()
        now_ms = seconds * 1000 + micros // 1000
        members = cast("list[bytes]", self._client.zrangebyscore(keys.leases(self._application), now_ms, "+inf"))
        return Counter(version_name(member.decode().split(" ")[0]) for member in members)
