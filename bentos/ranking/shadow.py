"""shadow: scores a request once more, after its answer, with a snapshot that nobody sees; one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.exposures import ExposureWriter, exposure_of
from bentos.ranking.query import RankingQuery
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.telemetry import Telemetry
from infra.cascade.runner import Cascade
from infra.contracts.exposures import Arm
from infra.resilience.complaints import Complaints
from infra.resilience.deadline import Deadline

_log = logging.getLogger("headgate.shadow")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way. budget_ms: what its answer is allowed, and its shadow anew."""

    request: RecommendRequest
    request_id: str
    budget_ms: float


class ShadowScorer:
    """Logs the list that the shadow would have shown, under the answer's request id; a failure touches no answer."""

    def __init__(self, cascade: Cascade[RankingQuery], exposures: ExposureWriter, telemetry: Telemetry) -> None:
        """cascade: of its own, without side effects and with its own reader and pool: requests neither wait for it nor count it."""
        self._cascade = cascade
        self._exposures = exposures
        self._telemetry = telemetry
        self._task: asyncio.Task[None] | None = None
        self._complaints = Complaints(_log)

    def score(self, asked: Asked, snapshot: RankingSnapshot) -> None:
        """Begin; returns at once. While another is under way this one is dropped and counted."""
        if self._task is not None and not self._task.done():
            self._telemetry.note("shadow_dropped")
            return
        self._task = asyncio.create_task(self._score(asked, snapshot), name="shadow")

    async def stop(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _score(self, asked: Asked, snapshot: RankingSnapshot) -> None:
        try:
            deadline = Deadline.after_ms(asked.budget_ms)
            query = RankingQuery.of(asked.request, snapshot, deadline=deadline)
            outcome = await self._cascade.run(query, deadline)
            exposure = exposure_of(
                query, outcome, request_id=asked.request_id, arm=Arm.SHADOW, total_ms=deadline.elapsed_ms()
            )
        except Exception as error:  # noqa: BLE001 - a snapshot that is tried out may fail in any way
            self._telemetry.note("shadow_failed")
            version = snapshot.alias.version
            self._complaints.note("failed", f"the shadow {version} scored nothing: {type(error).__name__}: {error}")
            return
        self._exposures.note(exposure)
        self._telemetry.note("shadow_scored")
