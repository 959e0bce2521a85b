"""trimming: the log's oldest records go once the archive has them, they are counted, and everybody else has read them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable, OperatorError
from infra.contracts.events import SHARDS
from infra.contracts.ids import ApplicationName
from infra.eventlog.protocol import EventLog
from infra.nearline.archive import end_of
from infra.nearline.state import StateStore
from infra.resilience.complaints import Complaints
from infra.snapshots import keys
from infra.snapshots.storage import Storage

_log = logging.getLogger("headgate.nearline")

_EVERY_S = 10.0


class Consumers:
    """Readers of the log beside worker and archive, by name. One that has noted all shards before it reads loses nothing."""

    def __init__(self, client: redis.asyncio.Redis, application: ApplicationName) -> None:
        self._client = client
        self._key = keys.log_consumers(application)

    async def note(self, consumer: str, offsets: Mapping[int, int]) -> None:
        """Say up to which offsets it has read. Raises DependencyUnavailable."""
        try:
            await self._client.hset(
                self._key, mapping={f"{consumer}:{shard}": offset for shard, offset in offsets.items()}
            )
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.") from error

    async def slowest(self) -> dict[int, int]:
        """For each shard that anybody reads, the lowest offset. Raises DependencyUnavailable."""
        try:
            found = cast("dict[bytes, bytes]", await self._client.hgetall(self._key))
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.") from error
        out: dict[int, int] = {}
        for field, offset in found.items():
            shard = int(field.rpartition(b":")[2])
            out[shard] = min(int(offset), out.get(shard, int(offset)))
        return out


class Trimmer:
    """Drops what nobody needs any more. What it goes by only rises, so that it may be old, and two of it do no harm."""

    def __init__(
        self,
        log: EventLog,
        store: StateStore,
        archive: Storage,
        consumers: Consumers,
        *,
        kept_records: int,
        horizon: int,
    ) -> None:
        """kept_records: how many offsets of a shard stay whoever has read them. horizon: of the log's duplicates."""
        if kept_records < horizon:
            raise OperatorError(
                f"HEADGATE_LOG_KEPT_RECORDS={kept_records} is less than HEADGATE_LOG_DUPLICATE_HORIZON={horizon}; a reader "
                "that begins anew could not find what was sent twice.",
                mend="Raise the first or lower the second.",
            )
        self._log = log
        self._store = store
        self._archive = archive
        self._consumers = consumers
        self._kept_records = kept_records
        self._complaints = Complaints(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Trim now and then until `stop` is set. Waits while the log, Redis or the store is away."""
        while not stop.is_set():
            try:
                await self.once()
            except (DependencyUnavailable, OSError) as error:
                self._complaints.note("away", f"The log is not trimmed: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _EVERY_S)

    async def once(self) -> dict[int, int]:
        """Returns, for each shard that lost records, up to which offset. Raises DependencyUnavailable."""
        counted, read = await self._store.offsets(), await self._consumers.slowest()
        extents = await self._log.extents(range(SHARDS))
        trimmed = {}
        for shard, extent in extents.items():
            upto = min(extent.tip - self._kept_records, counted[shard], read.get(shard, extent.tip))
            if upto >= extent.first:
                upto = min(upto, await asyncio.to_thread(end_of, self._archive, shard))
            if upto >= extent.first:
                await self._log.trim(shard, upto=upto)
                trimmed[shard] = upto
        return trimmed
