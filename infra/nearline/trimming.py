"""trimming: the log's oldest records go once the archive has them, they are counted, and everybody else has read them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable, InvalidRequest, OperatorError
from infra.contracts.events import SHARDS
from infra.contracts.ids import ApplicationName
from infra.eventlog.protocol import EventLog
from infra.eventlog.terms import Read, may_read_on
from infra.nearline.archive import read_upto
from infra.nearline.state import StateStore
from infra.nearline.state_terms import StateTerms
from infra.resilience.complaints import Complaints
from infra.snapshots import keys
from infra.snapshots.storage import Storage

_log = logging.getLogger("headgate.nearline")

_EVERY_S = 10.0


class Consumers:
    """Readers of the log beside worker and archive, by name: whoever else reads it says here how far, and is waited for.

        consumers, log = Consumers(client, application), open_log(settings(), application, timeout_s=5)
        after = await consumers.begin("training", log)
        for piece in await log.read(after, count=1000):
            ...                                          # what it does with the records
            after[piece.shard] = piece.upto
        await consumers.note("training", after)          # only now they may go

    One that is gone for good holds the trimming up until it is forgotten. One that is to notice a log that came back with less and
    grew again, keeps the term of `piece.terms[-1]` too, and asks `terms.require_same` before it takes a slice.
    """

    def __init__(self, client: redis.asyncio.Redis, application: ApplicationName) -> None:
        """client: of the Redis that holds the state."""
        self._client = client
        self._key = keys.log_consumers(application)

    async def begin(self, consumer: str, log: EventLog) -> dict[int, int]:
        """Go on where the consumer was; a new one begins at the oldest record there is. Returns the offsets to read behind.

        Raises DependencyUnavailable. Where a trim was under way just now, the first read may raise LogLost: forget, begin again.
        """
        known = {shard: offset for (name, shard), offset in (await self._known()).items() if name == consumer}
        new = [shard for shard in range(SHARDS) if shard not in known]
        if new:
            await self.note(consumer, dict.fromkeys(new, 0))  # first: from now on nothing goes
            firsts = {shard: extent.first - 1 for shard, extent in (await log.extents(new)).items()}
            await self.note(consumer, firsts)
            known |= firsts
        return known

    async def note(self, consumer: str, offsets: Mapping[int, int]) -> None:
        """Say up to which offsets it has read. Raises DependencyUnavailable."""
        await self._call(
            self._client.hset(self._key, mapping={f"{consumer}:{shard}": at for shard, at in offsets.items()})
        )

    async def forget(self, consumer: str) -> None:
        """It reads no more. Raises InvalidRequest where there is none of the name, DependencyUnavailable."""
        known = await self._known()
        fields = [f"{name}:{shard}" for name, shard in known if name == consumer]
        if not fields:
            raise InvalidRequest(
                f"{consumer!r} reads nothing; there are: {', '.join(sorted({name for name, _ in known})) or 'none'}."
            )
        await self._call(self._client.hdel(self._key, *fields))

    async def slowest(self) -> dict[int, int]:
        """For each shard that anybody reads, the lowest offset. Raises DependencyUnavailable."""
        out: dict[int, int] = {}
        for (_, shard), offset in (await self._known()).items():
            out[shard] = min(offset, out.get(shard, offset))
        return out

    async def lags(self, log: EventLog) -> dict[str, int]:
        """By consumer, how many records it has yet to read, in all shards that it reads. Raises DependencyUnavailable."""
        known, extents = await self._known(), await log.extents(range(SHARDS))
        out: dict[str, int] = {}
        for (name, shard), offset in sorted(known.items()):
            out[name] = out.get(name, 0) + max(extents[shard].tip - offset, 0)
        return out

    async def _known(self) -> dict[tuple[str, int], int]:
        found = cast("dict[bytes, bytes]", await self._call(self._client.hgetall(self._key)))
        pairs = ((field.decode().rpartition(":"), offset) for field, offset in found.items())
        return {(name, int(shard)): int(offset) for (name, _, shard), offset in pairs}

    async def _call(self, asked: Any) -> Any:
        try:
            return await asked
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.") from error


class Trimmer:
    """Drops what nobody needs any more. What it goes by only rises, so that it may be old, and two of it do no harm."""

    def __init__(
        self,
        log: EventLog,
        store: StateStore,
        archive: Storage,
        consumers: Consumers,
        terms: StateTerms,
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
        self._terms = terms
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
        """Returns, for each shard that lost records, up to which offset. Raises DependencyUnavailable.

        A log that is another one than was read is left alone: nobody has read what it holds.
        """
        counted, read = await self._store.offsets(), await self._consumers.slowest()
        terms = await self._terms.of(range(SHARDS))
        extents = await self._log.extents(range(SHARDS))
        trimmed = {}
        for shard, extent in extents.items():
            upto = min(extent.tip - self._kept_records, counted[shard], read.get(shard, extent.tip))
            if upto < extent.first or not may_read_on(extent, Read(counted[shard], terms[shard])):
                continue
            archive = await asyncio.to_thread(read_upto, self._archive, shard)
            upto = min(upto, archive.offset)
            if upto >= extent.first and may_read_on(extent, archive):
                await self._log.trim(shard, upto=upto)
                trimmed[shard] = upto
        return trimmed
