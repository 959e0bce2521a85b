"""exposures: the lists that were shown, on their way to the log: queued by the request, written in batches beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from itertools import islice

from bentos.ranking.feedback import now_utc
from bentos.ranking.query import RankingQuery
from bentos.ranking.telemetry import Telemetry
from infra.cascade.batch import Outcome
from infra.contracts.canaries import bucket
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId
from infra.eventlog.protocol import ExposureLog
from infra.resilience.complaints import Complaints

_log = logging.getLogger("headgate.exposures")

EVERY_S = 0.2
"""How long a list waits for others to go with, at most: a write costs some 0.4 ms of processor, however few go with it."""

BATCH = 200
"""Lists a write: about 1 ms of Redis, and 2 ms of the event loop."""

MOST = 4000
"""Lists that wait while a write is under way. A hanging Redis holds a write up for half a second."""

STOP_S = 2.0
"""How long a service that stops goes on writing, at most."""

_SALT = "exposures"
"""Always the same users, whichever canary runs: a canary's own salt falls on them independently of this one."""


def exposure_of(query: RankingQuery, outcome: Outcome, *, request_id: str, arm: Arm, total_ms: float) -> Exposure:
    """That list, ready now."""
    alias, item_ids = query.snapshot.alias, query.snapshot.content.items.item_ids
    return Exposure(
        request_id=request_id,
        user_id=UserId(query.user_id),
        at=now_utc(),
        generation=alias.generation,
        version=alias.version,
        arm=arm,
        items=tuple(ItemId(item_ids[index]) for index in outcome.batch.ids.tolist()),
        total_ms=total_ms,
        degraded=outcome.degraded,
    )


class ExposureWriter:
    """Takes lists without waiting. What the queue cannot hold, or the log does not take, is lost and counted."""

    def __init__(self, log: ExposureLog, telemetry: Telemetry, *, users_fraction: float = 1.0) -> None:
        """users_fraction: of the users, whose lists are logged."""
        self._exposures = log
        self._telemetry = telemetry
        self._users_fraction = users_fraction
        self._waiting: deque[Exposure] = deque()
        self._some, self._many = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._complaints = Complaints(_log)

    def wants(self, user_id: str) -> bool:
        """Whether that user's lists are logged: always the same answer, in every process."""
        return self._users_fraction >= 1.0 or bucket(user_id, _SALT) < self._users_fraction

    def note(self, exposure: Exposure) -> None:
        """Queue it; returns at once and raises nothing."""
        if self._closing or len(self._waiting) >= MOST:
            self._lose(1, "the queue is full" if not self._closing else "the service stops")
            return
        self._waiting.append(exposure)
        self._some.set()
        if len(self._waiting) >= BATCH:
            self._many.set()

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write(), name="exposures")

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
            if len(self._waiting) < BATCH:
                self._many.clear()

    async def _flush(self) -> None:
        """One batch; it leaves the queue only afterwards, so that what a stop interrupts is counted."""
        batch = list(islice(self._waiting, BATCH))
        try:
            await self._exposures.append(batch)
            self._telemetry.note("exposures_logged", len(batch))
        except DependencyUnavailable as error:
            self._lose(len(batch), str(error))
        except Exception as error:  # noqa: BLE001 - whatever one of them holds, the next ones are written
            self._lose(len(batch), f"{type(error).__name__}: {error}")
        for _ in batch:
            self._waiting.popleft()

    def _lose(self, number: int, why: str) -> None:
        self._telemetry.note("exposures_lost", number)
        self._complaints.note("lost", f"{number} list(s) shown are not in the log: {why}")
