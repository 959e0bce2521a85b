"""kept: writers of lists shown and of decisions that keep them for a test to look at."""

from __future__ import annotations

from collections.abc import Sequence

import redis.asyncio

from bentos.ranking.exposures import ExposureWriter
from bentos.ranking.pipeline import ranking_cascade
from bentos.ranking.queued import QueuedWriter
from bentos.ranking.shadow import ShadowScorer
from bentos.ranking.telemetry import Telemetry
from infra.contracts.decisions import Decision
from infra.contracts.exposures import Exposure
from infra.eventlog.exposures import RedisExposureLog


class KeptLists(ExposureWriter):
    """Takes all that is noted, and writes nothing."""

    def __init__(self, client: redis.asyncio.Redis, telemetry: Telemetry, *, users_fraction: float = 1.0) -> None:
        super().__init__(RedisExposureLog(client, "unused", kept=1), telemetry, users_fraction=users_fraction)
        self.noted: list[Exposure] = []

    def note(self, entry: Exposure) -> None:
        self.noted.append(entry)


class KeptDecisions(QueuedWriter[Decision]):
    """Takes all that is noted, and writes nothing."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(_nowhere, telemetry, name="decisions", batch=1)
        self.noted: list[Decision] = []

    def note(self, entry: Decision) -> None:
        self.noted.append(entry)


async def _nowhere(decisions: Sequence[Decision]) -> None:
    pass


def shadow_on(client: redis.asyncio.Redis, lists: ExposureWriter, telemetry: Telemetry) -> ShadowScorer:
    """As the service wires it, but for its thread."""
    return ShadowScorer(ranking_cascade(client, lane=None), lists, telemetry)
