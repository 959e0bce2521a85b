"""reader: all that Redis knows of a user in one round trip, shared by the requests that wait at the same moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from bentos.ranking.query import PLAN, RankingQuery
from infra.catalog.features.ranking import USER_FEATURES
from infra.contracts.candidates import Int32s, UserRecord, unpack
from infra.contracts.errors import ContractViolation, DependencyUnavailable, SnapshotNotLoaded
from infra.contracts.ids import ApplicationName
from infra.eventlog.scripts import taught
from infra.nearline.pending import READ, PendingRecords, Seen
from infra.resilience.deadline import Deadline
from infra.snapshots import keys

_IN_FLIGHT = 2
"""Round trips at a time. A request alone starts its own at once; what comes while both are under way goes together in the next."""

_MOST_USERS = 64
"""Users a round trip: 64 records are about 400 KB."""


_MEND = "Load the version again: python -m infra.snapshots load"


@dataclass(frozen=True, slots=True)
class _Ask:
    """One user's read. deadline: after which nobody waits; None: no such moment. reply: what was seen, the packed record or None
    among it, and whether the version's copy is complete."""

    record_key: str
    marker_key: str
    user_id: str
    deadline: Deadline | None
    reply: asyncio.Future[tuple[Seen, bool]] = field(compare=False)


@dataclass(frozen=True, slots=True)
class _OlderAsk:
    """The read of what one user consumed earlier; deadline: as above. reply: packed items; None where Redis has nothing of it."""

    key: str
    deadline: Deadline | None
    reply: asyncio.Future[bytes | None] = field(compare=False)


_Asks = list[_Ask | _OlderAsk]


class Reader(Protocol):
    """Lets a query learn what is known of its user: Redis's reader, or one that a replay gives what Redis held then."""

    async def read(self, query: RankingQuery) -> None:
        """See UserReader."""

    async def older(self, query: RankingQuery) -> Int32s:
        """See UserReader."""


class UserReader:
    """Reads users. A caller that gives up while it waits takes nothing from the others, and no reply can go to another."""

    def __init__(self, client: redis.asyncio.Redis, application: ApplicationName) -> None:
        self._client = client
        self._pending = PendingRecords(client, application, PLAN, kinds=frozenset({"user"}))
        self._waiting: _Asks = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def read(self, query: RankingQuery) -> None:
        """Let the query learn the user's record and overlay.

        Raises DependencyUnavailable, and SnapshotNotLoaded where Redis has not this snapshot's records (or others).
        """
        version, application = query.snapshot.alias.version, query.snapshot.manifest.application
        ask = _Ask(
            record_key=keys.user_record(application, version, query.user_id),
            marker_key=keys.load_marker(application, version),
            user_id=query.user_id,
            deadline=query.deadline,
            reply=asyncio.get_running_loop().create_future(),
        )
        self._wait(ask)
        seen, loaded = await ask.reply
        (payload,) = seen.values
        query.learn(None, seen)
        if payload is not None:
            query.learn(checked_record(payload, n_items=query.snapshot.content.n_items), seen)
        elif not loaded:
            raise SnapshotNotLoaded(
                f"{version} is not in Redis.",
                mend=f"Run: python -m infra.snapshots load --application {application} --version {version}",
            )

    async def older(self, query: RankingQuery) -> Int32s:
        """int32: what the user consumed before the record's history, in a round trip shared like the reads.

        Raises DependencyUnavailable, SnapshotNotLoaded.
        """
        version, application = query.snapshot.alias.version, query.snapshot.manifest.application
        ask = _OlderAsk(
            key=keys.consumed(application, version, query.user_id),
            deadline=query.deadline,
            reply=asyncio.get_running_loop().create_future(),
        )
        self._wait(ask)
        payload = await ask.reply or b""
        items = np.frombuffer(payload, "<i4", len(payload) // 4)
        if len(payload) % 4 or (
            len(items) and not 0 <= int(items.min()) <= int(items.max()) < query.snapshot.content.n_items
        ):
            raise SnapshotNotLoaded("What Redis holds of a user's consumed items is not this snapshot's.", mend=_MEND)
        return items

    def _wait(self, ask: _Ask | _OlderAsk) -> None:
        self._waiting.append(ask)
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._under_way) < _IN_FLIGHT:
            asks = [ask for ask in self._waiting[:_MOST_USERS] if not ask.reply.done()]
            del self._waiting[:_MOST_USERS]
            if asks:
                task = asyncio.get_running_loop().create_task(self._round_trip(asks))
                self._under_way.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    async def _round_trip(self, asks: _Asks) -> None:
        """An error of one command is that of who asked it, a lost connection everybody's.

        It ends when the last of those who wait gives up: a Redis that hangs keeps no later request waiting.
        """
        try:
            async with asyncio.timeout(_left_s(asks)):
                found = await self._asked(asks)
                if any(isinstance(reply, NoScriptError) for replies in found for reply in replies):
                    await taught(self._client, READ)
                    found = await self._asked(asks)
        except (RedisError, OSError) as error:
            found = [[error]] * len(asks)
        except asyncio.CancelledError:
            for ask in asks:
                ask.reply.cancel()
            raise
        for ask, replies in zip(asks, found, strict=True):
            if ask.reply.done():
                continue
            failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
            if failed is not None:
                ask.reply.set_exception(
                    DependencyUnavailable(f"Redis did not answer: {type(failed).__name__}: {failed}")
                )
            elif isinstance(ask, _OlderAsk):
                ask.reply.set_result(cast("bytes | None", replies[0]))
            else:
                self._answer(ask, cast("list[object]", replies[0]), is_loaded=bool(replies[1]))

    async def _asked(self, asks: _Asks) -> list[list[object]]:
        """The replies to each ask: two of a user, one of what was consumed earlier, which one command reads for all."""
        pipe = self._client.pipeline(transaction=False)
        older = [ask.key for ask in asks if isinstance(ask, _OlderAsk)]
        for ask in asks:
            if isinstance(ask, _Ask):
                self._pending.ask(pipe, "user", ask.user_id, [ask.record_key])
                pipe.exists(ask.marker_key)
        if older:
            pipe.mget(older)
        found = cast("list[object]", await pipe.execute(raise_on_error=False))
        packed = found.pop() if older else []
        payloads = iter(packed if isinstance(packed, list) else [packed] * len(older))
        of_users = iter(zip(found[::2], found[1::2], strict=True))
        return [[next(payloads)] if isinstance(ask, _OlderAsk) else [*next(of_users)] for ask in asks]

    def _answer(self, ask: _Ask, reply: list[object], *, is_loaded: bool) -> None:
        try:
            ask.reply.set_result((self._pending.seen("user", ask.user_id, reply), is_loaded))
        except Exception as error:  # noqa: BLE001 - whatever one user's state holds, the others' requests go on
            ask.reply.set_exception(
                DependencyUnavailable(f"The nearline state of a user cannot be read: {type(error).__name__}: {error}")
            )


def _left_s(asks: _Asks) -> float | None:
    """Until the latest of their deadlines; None where one has none."""
    deadlines = [ask.deadline for ask in asks if ask.deadline is not None]
    if len(deadlines) < len(asks):
        return None
    return max(deadline.remaining_ms() for deadline in deadlines) / 1000


def checked_record(payload: bytes, *, n_items: int) -> UserRecord:
    """The record, or SnapshotNotLoaded where the bytes are none or do not belong to the pinned snapshot."""
    try:
        record = unpack(payload)
    except ContractViolation as error:
        raise SnapshotNotLoaded(f"What Redis holds for the user is no record: {error}", mend=_MEND) from error
    for indices in (record.item_indices, record.history):
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n_items:
            raise SnapshotNotLoaded("A user's record names items that the snapshot has not.", mend=_MEND)
    if len(record.features) != len(USER_FEATURES):
        raise SnapshotNotLoaded(
            f"A user's record has {len(record.features)} features; wanted {len(USER_FEATURES)}.", mend=_MEND
        )
    return record
