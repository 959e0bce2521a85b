"""queued: what a request leaves behind for a log: queued without waiting, written in batches beside the requests, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from bentos.ranking.telemetry import Telemetry
from infra.contracts.errors import DependencyUnavailable
from infra.resilience.complaints import Complaints

T = TypeVar("T")

_log = logging.getLogger("headgate.queued")

EVERY_S = 0.2
"""How long an entry waits for others to go with, at most: a write costs some 0.4 ms of processor, however few go with it."""

MOST = 4000
"""Entries that wait while a write is under way. A hanging Redis holds a write up for half a second."""

STOP_S = 2.0
"""How long a service that stops goes on writing, at most."""


class QueuedWriter(Generic[T]):
    """Takes entries without waiting. What the queue cannot hold, or the log does not take, is lost and counted."""

    def __init__(
        self,
        append: Callable[[Sequence[T]], Awaitable[None]],
        telemetry: Telemetry,
        *,
        name: str,
        batch: int,
    ) -> None:
        """append: raises DependencyUnavailable. name: counted are <name>_logged and <name>_lost. batch: entries a write."""
        self._append = append
        self._telemetry = telemetry
        self._name = name
        self._batch = batch
        self._waiting: deque[T] = deque()
        self._some, self._many = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._complaints = Complaints(_log)

    def note(self, entry: T) -> None:
        """Queue it; returns at once and raises nothing."""
        if self._closing or len(self._waiting) >= MOST:
            self._lose(1, "the queue is full" if not self._closing else "the service stops")
            return
        self._waiting.append(entry)
        self._some.set()
        if len(self._waiting) >= self._batch:
            self._many.set()

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write(), name=self._name)

    async def stop(self) -> None:
        """Write what waits, for STOP_S at most, and end; what is left then is lost."""
        self._closing = True
        self._some.set()
        self._many.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_S)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._waiting:
            self._lose(len(self._waiting), "the service stopped before they were written")
            self._waiting.clear()

    async def _write(self) -> None:
        while self._waiting or not self._closing:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._many.wait()
            await self._flush()
            if self._closing:
                continue
            if not self._waiting:
                self._some.clear()
            if len(self._waiting) < self._batch:
                self._many.clear()

    async def _flush(self) -> None:
        """One batch; it leaves the queue only afterwards, so that what a stop interrupts is counted."""
        batch = list(islice(self._waiting, self._batch))
        try:
            await self._append(batch)
            self._telemetry.note(f"{self._name}_logged", len(batch))
        except DependencyUnavailable as error:
            self._lose(len(batch), str(error))
        except Exception as error:  # noqa: BLE001 - whatever one of them holds, the next ones are written
            self._lose(len(batch), f"{type(error).__name__}: {error}")
        for _ in batch:
            self._waiting.popleft()

    def _lose(self, number: int, why: str) -> None:
        self._telemetry.note(f"{self._name}_lost", number)
        self._complaints.note("lost", f"{number} of the {self._name} are not in the log: {why}")
