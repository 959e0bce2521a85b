"""live_canary: the service's side of a canary: what the alias names beside the live snapshot, loaded while that one is served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Generic

from infra.contracts.canaries import CanaryMode
from infra.contracts.errors import HeadgateError
from infra.contracts.exposures import Arm
from infra.contracts.snapshots import Alias
from infra.snapshots.pinned import Assignment, Pinned, T

_log = logging.getLogger("headgate.canary")


class LiveCanary(Generic[T]):
    """Keeps `pinned` at the canary of the alias that is served. A canary that cannot be loaded takes nothing from the live one."""

    def __init__(self, read: Callable[[Alias], Pinned[T]], *, retry_s: float) -> None:
        """read: from the store, in a thread. retry_s: how long after a failure it is tried again."""
        self._read = read
        self._retry_s = retry_s
        self._loading: tuple[Alias, asyncio.Task[Pinned[T]]] | None = None
        self._failed_at_s = -math.inf
        self.pinned: Pinned[T] | None = None
        self.problem = ""

    def follow(self, live: Pinned[T], left: Pinned[T] | None) -> None:
        """Look at what the live alias says, begin or end a load; returns at once.

        left: what was live until now: a canary whose bytes are the same is not read again.
        """
        wanted = _named_beside(live.alias)
        if wanted is None:
            self._forget()
            return
        held = next((it for it in (self.pinned, left) if it is not None and it.alias.digest == wanted.digest), None)
        if held is not None:
            self.pinned, self.problem = replace(held, alias=wanted), ""
            return
        self.pinned = None
        self._load(wanted)

    def assign(self, live: Pinned[T], user_id: str) -> Assignment[T]:
        """Which of the two the user is shown, and whether the other scores along."""
        canary = live.alias.canary
        if canary is None or not canary.takes(user_id):
            return Assignment(live, Arm.LIVE)
        pinned = self.pinned
        if pinned is not None and (pinned.alias.generation, pinned.alias.digest) != (
            live.alias.generation,
            canary.digest,
        ):
            pinned = None  # the alias moved on, and its canary is not loaded yet
        if canary.mode is CanaryMode.SHADOW:
            return Assignment(live, Arm.LIVE, shadow=pinned)
        return Assignment(pinned or live, Arm.CANARY)

    async def stop(self) -> None:
        """Let go of a load that is under way."""
        task = self._loading[1] if self._loading is not None else None
        self._forget()
        if task is not None:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    def _forget(self) -> None:
        if self._loading is not None:
            self._loading[1].cancel()
        self._loading, self.pinned, self.problem, self._failed_at_s = None, None, "", -math.inf

    def _load(self, wanted: Alias) -> None:
        if self._loading is not None and self._loading[0] != wanted:
            self._forget()
        if self._loading is None:
            if time.monotonic() - self._failed_at_s >= self._retry_s:
                task = asyncio.create_task(asyncio.to_thread(self._read, wanted), name="canary-load")
                self._loading = (wanted, task)
                self.problem = self.problem or f"{wanted.version} is being loaded"
            return
        task = self._loading[1]
        if not task.done():
            return
        self._loading = None
        error = task.exception()
        if error is None:
            self.pinned, self.problem = task.result(), ""
            _log.info("canary: %s, loaded in %.2f s", wanted.version, self.pinned.load_seconds)
            return
        self._failed_at_s = time.monotonic()
        self.problem = f"the canary {wanted.version} cannot be served: {type(error).__name__}: {error}"
        known = isinstance(error, HeadgateError)
        _log.error("%s", self.problem, exc_info=None if known else (type(error), error, error.__traceback__))


def _named_beside(alias: Alias) -> Alias | None:
    """The canary as an alias of its own, under the generation that started it."""
    if alias.canary is None:
        return None
    return replace(alias, version=alias.canary.version, digest=alias.canary.digest)
