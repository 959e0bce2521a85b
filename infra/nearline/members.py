"""members: which workers there are, and which shards each of them should hold: the living share them evenly."""

from __future__ import annotations

from typing import cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS
from infra.contracts.ids import ApplicationName
from infra.snapshots import keys

_HERE = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
# By Redis's clock alone, so that workers on hosts with different clocks agree on who is alive.


class Members:
    """The workers of an application."""

    def __init__(
        self, client: redis.asyncio.Redis, application: ApplicationName, name: str, *, lease_s: float = 5.0
    ) -> None:
        """name: this worker's, unique. lease_s: a worker that says nothing for so long is taken for dead."""
        self._client = client
        self._key = keys.nearline_workers(application)
        self._name = name
        self._lease_ms = round(lease_s * 1000)
        self._here = client.register_script(_HERE)

    async def share(self) -> set[int]:
        """Say that this worker lives, and learn which shards are its own now. Raises DependencyUnavailable."""
        try:
            found = cast("list[bytes]", await self._here(keys=[self._key], args=[self._name, self._lease_ms]))
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.") from error
        return share_of(self._name, [name.decode() for name in found])

    async def leave(self) -> None:
        """Say that it goes."""
        try:
            await self._client.zrem(self._key, self._name)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.") from error


def share_of(name: str, names: list[str]) -> set[int]:
    """Every n-th shard, by the place of the name among the sorted names."""
    ordered = sorted(names)
    return set(range(ordered.index(name), SHARDS, len(ordered)))
