"""reader: all that Redis knows of a user in one round trip, shared by the requests that wait at the same moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import redis.asyncio
from redis.exceptions import RedisError

from bentos.ranking.query import RankingQuery, known_items
from infra.catalog.features.ranking import USER_FEATURES
from infra.contracts.candidates import Int32s, UserRecord, unpack
from infra.contracts.errors import ContractViolation, DependencyUnavailable, SnapshotNotLoaded
from infra.contracts.ids import ApplicationName
from infra.snapshots import keys
from infra.snapshots.overlay import ask_recent, recent_ids

_IN_FLIGHT = 2
"""Round trips at a time. A request alone starts its own at once; what comes while both are under way goes together in the next."""

_MOST_USERS = 64
"""Users a round trip: 64 records are about 400 KB."""


_MEND = "Load the version again: python -m infra.snapshots load"


@dataclass(frozen=True, slots=True)
class _Ask:
    """One user's read. reply: the packed record or None, the recent items, whether the version's copy is complete."""

    application: ApplicationName
    record_key: str
    marker_key: str
    user_id: str
    reply: asyncio.Future[tuple[bytes | None, list[bytes], bool]] = field(compare=False)


class UserReader:
    """Reads users. A caller that gives up while it waits takes nothing from the others, and no reply can go to another."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: list[_Ask] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def read(self, query: RankingQuery) -> None:
        """Let the query learn the user's record and overlay.

        Raises DependencyUnavailable, and SnapshotNotLoaded where Redis has not this snapshot's records (or others).
        """
        version, application = query.snapshot.alias.version, query.snapshot.manifest.application
        ask = _Ask(
            application,
            record_key=keys.user_record_prefix(application, version) + query.user_id,
            marker_key=keys.load_marker(application, version),
            user_id=query.user_id,
            reply=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(ask)
        self._start()
        payload, recent, loaded = await ask.reply
        overlay = known_items(query.snapshot, recent_ids(recent))
        query.learn(None, overlay)
        if payload is not None:
            query.learn(_record(payload, n_items=_n_items(query)), overlay)
        elif not loaded:
            raise SnapshotNotLoaded(
                f"{version} is not in Redis.",
                mend=f"Run: python -m infra.snapshots load --application {application} --version {version}",
            )

    async def older(self, query: RankingQuery) -> Int32s:
        """int32: what the user consumed before the record's history. Raises DependencyUnavailable, SnapshotNotLoaded."""
        version, application = query.snapshot.alias.version, query.snapshot.manifest.application
        try:
            payload = await self._client.get(keys.consumed_prefix(application, version) + query.user_id)
        except (RedisError, OSError) as error:
            raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}") from error
        payload = cast("bytes", payload or b"")
        items = np.frombuffer(payload, "<i4", len(payload) // 4)
        if len(payload) % 4 or (len(items) and not 0 <= int(items.min()) <= int(items.max()) < _n_items(query)):
            raise SnapshotNotLoaded("What Redis holds of a user's consumed items is not this snapshot's.", mend=_MEND)
        return items

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

    async def _round_trip(self, asks: list[_Ask]) -> None:
        """Three replies an ask; an error of one command is its own ask's, a lost connection everybody's."""
        pipe = self._client.pipeline(transaction=False)
        for ask in asks:
            pipe.get(ask.record_key)
            ask_recent(pipe, ask.application, ask.user_id)
            pipe.exists(ask.marker_key)
        try:
            found = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            found = [error] * (3 * len(asks))
        except asyncio.CancelledError:
            for ask in asks:
                ask.reply.cancel()
            raise
        for at, ask in enumerate(asks):
            if ask.reply.done():
                continue
            replies = found[3 * at : 3 * at + 3]
            failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
            if failed is not None:
                ask.reply.set_exception(
                    DependencyUnavailable(f"Redis did not answer: {type(failed).__name__}: {failed}")
                )
            else:
                payload, recent, loaded = replies
                ask.reply.set_result((cast("bytes | None", payload), cast("list[bytes]", recent), bool(loaded)))


def _n_items(query: RankingQuery) -> int:
    return len(query.snapshot.content.items.item_ids)


def _record(payload: bytes, *, n_items: int) -> UserRecord:
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
