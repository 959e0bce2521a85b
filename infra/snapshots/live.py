"""live: the service's side of the alias: it is watched, what it names is loaded, and only then do requests see it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import HeadgateError, SnapshotCorrupt
from infra.contracts.ids import ApplicationName
from infra.contracts.snapshots import Alias, Manifest
from infra.snapshots import keys
from infra.snapshots.alias import parse_alias
from infra.snapshots.versions import SnapshotStore, Version

_log = logging.getLogger("headgate.live")

POLL_S = 0.2
"""A flip is announced on a channel; the poll finds it where the announcement was lost."""

RETRY_S = 5.0
"""A snapshot that could not be loaded is tried again after this long: the store may have been away."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pinned(Generic[T]):
    """One snapshot as a request sees it. A request takes the reference once; nothing of another version mixes in."""

    alias: Alias
    manifest: Manifest
    content: T
    loaded_at: datetime
    load_seconds: float


class LiveSnapshots(Generic[T]):
    """Keeps `current` at what the alias names.

    A higher generation is followed. A Redis that came back empty or with an older alias changes nothing here, but somebody's
    flip on such a Redis is followed: its generation is low again, its time is later than that of the flip served now. A
    snapshot that cannot be loaded changes nothing either; `problem` says why.
    """

    def __init__(
        self, client: redis.asyncio.Redis, store: SnapshotStore, load: Callable[[Version, Manifest], T]
    ) -> None:
        """load: reads what the service needs of a version, in a thread; raises HeadgateError where it must not be served."""
        self._client = client
        self._store = store
        self._load = load
        self._task: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._failed: tuple[int, str] | None = None
        self._failed_at_s = 0.0
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

    async def check(self) -> None:
        """Look at the alias once, and load what it names if that is new."""
        try:
            row = await self._client.hgetall(keys.alias(self._store.application))
        except (RedisError, OSError, TimeoutError) as error:
            self.redis_problem = f"Redis does not answer ({type(error).__name__}: {error})"
            return
        self.redis_problem = ""
        if not row:
            if self.current is not None:
                self.snapshot_problem = (
                    f"the alias is gone from Redis; {self.current.alias.version} is served on. "
                    f"Run: make rollback VERSION={self.current.alias.version}"
                )
            return
        alias = parse_alias(row)
        current = self.current
        if current is not None and (alias.generation, alias.digest) == (current.alias.generation, current.alias.digest):
            self.snapshot_problem = ""
            return
        if current is not None and not _later(alias, current.alias):
            self.snapshot_problem = (
                f"the alias says generation {alias.generation} ({alias.version}), generation {current.alias.generation} "
                f"({current.alias.version}) is served: Redis came back with an older memory. "
                f"Run: make rollback VERSION={current.alias.version}, or name the version that is wanted"
            )
            return
        if current is not None and alias.digest == current.alias.digest:
            self.current, self._failed, self.snapshot_problem = replace(current, alias=alias), None, ""
            return
        wanted = (alias.generation, alias.digest)
        if self._failed == wanted and time.monotonic() - self._failed_at_s < RETRY_S:
            return
        await self._take(alias)

    async def _take(self, alias: Alias) -> None:
        try:
            pinned = await asyncio.to_thread(self.read, alias)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the one before is served on, and we say so
            self._failed, self._failed_at_s = (alias.generation, alias.digest), time.monotonic()
            self.snapshot_problem = f"{alias.version} cannot be served: {type(error).__name__}: {error}"
            _log.error("%s", self.snapshot_problem, exc_info=not isinstance(error, HeadgateError))
            return
        self.current, self._failed, self.snapshot_problem = pinned, None, ""
        _log.info("live: %s generation %d, loaded in %.2f s", alias.version, alias.generation, pinned.load_seconds)

    def read(self, alias: Alias) -> Pinned[T]:
        """What the alias names, from the store. Raises SnapshotNotFound, SnapshotCorrupt."""
        started = time.monotonic()
        version = self._store.get(alias.version)
        manifest = version.manifest()
        if manifest.digest != alias.digest:
            raise SnapshotCorrupt(
                f"{version.label} on the store has digest {manifest.digest[:12]}, the alias names {alias.digest[:12]}.",
                mend="HEADGATE_STORE of the service and of the jobs must be the same.",
            )
        content = self._load(version, manifest)
        return Pinned(alias, manifest, content, datetime.now(UTC), time.monotonic() - started)

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


def _later(alias: Alias, served: Alias) -> bool:
    """Whether an alias was flipped after the one that is served: by generation, and by time where Redis began to count again."""
    return alias.generation > served.generation or alias.flipped_at > served.flipped_at
