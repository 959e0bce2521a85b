"""live: the service's side of the alias: it is watched, what it names is loaded, and only then do requests see it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Generic

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import HeadgateError, SnapshotNotFound
from infra.contracts.ids import ApplicationName, VersionName, alias_value
from infra.contracts.snapshots import Alias, State
from infra.snapshots import keys
from infra.snapshots.alias import parse_alias_reply
from infra.snapshots.leases import LEASE_S, PIN, reader_name
from infra.snapshots.live_canary import LiveCanary
from infra.snapshots.pinned import Assignment, Load, Pinned, T, read_pinned
from infra.snapshots.versions import SnapshotStore

_log = logging.getLogger("headgate.live")

POLL_S = 0.2
"""A flip is announced on a channel; the poll finds it where the announcement was lost."""

RETRY_S = 5.0
"""A snapshot that could not be loaded is tried again after this long: the store may have been away."""


class LiveSnapshots(Generic[T]):
    """Keeps `current` at what the alias names, and leases it by the same call that reads the alias.

    Only a higher generation is followed: the journal of flips makes generations grow whatever Redis forgot. A Redis that came
    back empty or with an older alias changes nothing here, nor does a snapshot that cannot be loaded; `problem` says why. A
    service that starts beside such a Redis begins with what the journal says.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        store: SnapshotStore,
        load: Load[T],
        *,
        prepare: Callable[[Pinned[T]], Awaitable[object]] | None = None,
    ) -> None:
        """load: is called in a thread. prepare: is given what was loaded before any request sees it; what it raises is as if the
        load had."""
        self._client = client
        self._store = store
        self._load = load
        self._prepare = prepare
        self._task: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._failed: tuple[int, str] | None = None
        self._failed_at_s = 0.0
        self._asked_journal_s = -math.inf
        self._pin = client.register_script(PIN)
        self._reader = reader_name()
        self._leased_until_s = 0.0
        self._beside = LiveCanary(self.read, retry_s=RETRY_S)
        self.current: Pinned[T] | None = None
        self.snapshot_problem = "no version is live yet"
        self.redis_problem = ""

    @property
    def application(self) -> ApplicationName:
        """Whose snapshots these are."""
        return self._store.application

    @property
    def problem(self) -> str:
        """Why what is served is not what it should be; empty where all is well."""
        return "; ".join(text for text in (self.redis_problem, self.snapshot_problem) if text)

    @property
    def mend(self) -> str:
        """What to do where nothing can be served; empty where something is."""
        if self.current is not None:
            return ""
        return "Run: make up" if self.redis_problem else "Run: make snapshot"

    @property
    def canary(self) -> Pinned[T] | None:
        """What runs beside the live snapshot, once it is loaded."""
        return self._beside.pinned

    @property
    def canary_problem(self) -> str:
        """Why the canary that the alias names is not served; empty where it is, or where none runs."""
        return self._beside.problem

    def assign(self, user_id: str) -> Assignment[T] | None:
        """Which snapshot a request of that user is answered from, by one look; None where none is loaded yet."""
        current = self.current
        return self._beside.assign(current, user_id) if current is not None else None

    async def start(self) -> None:
        """Begin to watch. Returns at once; `current` is set when the first snapshot has been loaded."""
        self._task = asyncio.create_task(self._watch(), name="alias-poll")
        self._listener = asyncio.create_task(self._listen(), name="alias-listener")

    async def stop(self) -> None:
        """End the watch."""
        for task in (self._task, self._listener):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._beside.stop()

    def outlived(self, leased_until_s: float) -> bool:
        """Whether that lease, read when a request began, ran out before it ended: then the process was stopped on the way.

        The version may have been deleted meanwhile; the request looks again (`check`) and starts once more. False where there
        was no lease to lose: Redis was away already.
        """
        return 0.0 < leased_until_s < time.monotonic()

    def lease(self) -> float:
        """Until when, on the monotonic clock, what is served now cannot be deleted; 0 where no lease is held."""
        return self._leased_until_s if time.monotonic() < self._leased_until_s else 0.0

    async def check(self) -> None:
        """Look at the alias once, lease what it names and what is served, and load what it names if that is new."""
        before = self.current
        await self._check()
        if self.current is not None:
            self._beside.follow(self.current, left=before)

    async def _check(self) -> None:
        alias: Alias | None = None
        try:
            alias = await self._read_alias()
            self.redis_problem = ""
        except (RedisError, OSError, TimeoutError) as error:
            self.redis_problem = f"Redis does not answer ({type(error).__name__}: {error})"
            if self.current is not None:
                return
        current = self.current
        if current is None:
            alias = await self._first(alias)
        if alias is None:
            if current is not None:
                self.snapshot_problem = (
                    f"the alias is gone from Redis; {current.alias.version} is served on. "
                    "Run: python -m infra.snapshots reload"
                )
            return
        if current is not None and (alias.generation, alias.digest) == (current.alias.generation, current.alias.digest):
            self.snapshot_problem = ""
            return
        if current is not None and alias.generation <= current.alias.generation:
            self.snapshot_problem = (
                f"the alias says generation {alias.generation} ({alias.version}), generation {current.alias.generation} "
                f"({current.alias.version}) is served on: Redis came back with an older memory. "
                "Run: python -m infra.snapshots reload"
            )
            return
        held = next((it for it in (current, self.canary) if it is not None and it.alias.digest == alias.digest), None)
        if held is not None:
            self.current, self._failed, self.snapshot_problem = replace(held, alias=alias), None, ""
            return
        wanted = (alias.generation, alias.digest)
        if self._failed == wanted and time.monotonic() - self._failed_at_s < RETRY_S:
            return
        await self._take(alias)

    async def _read_alias(self) -> Alias | None:
        served = [alias_value(it.alias.version) if it is not None else "" for it in (self.current, self.canary)]
        names = [keys.alias(self.application), keys.leases(self.application)]
        asked_s = time.monotonic()
        reply = await self._pin(keys=names, args=[self._reader, int(LEASE_S * 1000), *served])
        self._leased_until_s = asked_s + LEASE_S / 2
        return parse_alias_reply(reply)

    async def _first(self, alias: Alias | None) -> Alias | None:
        """What to begin with: the last flip that was applied by the journal, where Redis names an earlier one or none."""
        if alias is None and time.monotonic() - self._asked_journal_s < RETRY_S:
            return None
        self._asked_journal_s = time.monotonic()
        try:
            applied = await asyncio.to_thread(self._applied)
        except (HeadgateError, OSError) as error:
            _log.warning("the journal of flips cannot be read: %s", error)
            return alias
        if applied is None or (alias is not None and alias.generation >= applied.generation):
            return alias
        return applied

    def _applied(self) -> Alias | None:
        """The journal's end, if its states were recorded: before that, its flip may not have reached Redis."""
        tip = self._store.journal.tip().record
        if tip is None:
            return None
        canary, ended = tip.canary, tip.canary_before
        settled = self._is(tip.target.version, State.LIVE)
        if canary is not None:
            settled = settled and self._is(canary.version, State.CANARY)
        elif ended is not None:
            settled = settled and not self._is(ended.version, State.CANARY)
        return tip.alias if settled else None

    def _is(self, name: VersionName, state: State) -> bool:
        try:
            return self._store.get(name).state() is state
        except SnapshotNotFound:
            return False

    async def _take(self, alias: Alias) -> None:
        try:
            pinned = await self._read_leased(alias)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the one before is served on, and we say so
            self._failed, self._failed_at_s = (alias.generation, alias.digest), time.monotonic()
            self.snapshot_problem = f"{alias.version} cannot be served: {type(error).__name__}: {error}"
            _log.error("%s", self.snapshot_problem, exc_info=not isinstance(error, HeadgateError))
            return
        self.current, self._failed, self.snapshot_problem = pinned, None, ""
        _log.info("live: %s generation %d, loaded in %.2f s", alias.version, alias.generation, pinned.load_seconds)

    async def _read_leased(self, alias: Alias) -> Pinned[T]:
        """Read and prepared; however long it takes, the leases of what is served and of what comes are renewed."""
        reading = asyncio.create_task(self._read_prepared(alias))
        try:
            while not (await asyncio.wait({reading}, timeout=LEASE_S / 5))[0]:
                with contextlib.suppress(RedisError, OSError, TimeoutError):
                    await self._read_alias()
            return await reading
        finally:
            reading.cancel()

    async def _read_prepared(self, alias: Alias) -> Pinned[T]:
        pinned = await asyncio.to_thread(self.read, alias)
        if self._prepare is not None:
            await self._prepare(pinned)
        return pinned

    def read(self, alias: Alias) -> Pinned[T]:
        """What the alias names, from the store. Raises SnapshotNotFound, SnapshotCorrupt.

        A collection that walks a catalogue stops requests for its whole length, so that none does from here on. What is frozen
        goes when nothing refers to it any more: a content that is part of a cycle would stay for good.
        """
        pinned = read_pinned(self._store, alias, self._load)
        gc.freeze()
        return pinned

    async def _watch(self) -> None:
        while True:
            try:
                await self.check()
            except Exception as error:  # noqa: BLE001 - an alias that nobody here wrote: say so and go on
                self.snapshot_problem = f"the alias cannot be read: {type(error).__name__}: {error}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            self._wake.clear()

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(keys.alias_channel(self._store.application))
                    while True:
                        if await channel.get_message(timeout=30.0) is not None:
                            self._wake.set()
            await asyncio.sleep(POLL_S)
