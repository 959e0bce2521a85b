"""kept: a writer of lists shown that keeps them for a test to look at."""

from __future__ import annotations

import redis.asyncio

from bentos.ranking.exposures import ExposureWriter
from bentos.ranking.pipeline import ranking_cascade
from bentos.ranking.shadow import ShadowScorer
from bentos.ranking.telemetry import Telemetry
from infra.contracts.exposures import Exposure
from infra.eventlog.exposures import RedisExposureLog


class KeptLists(ExposureWriter):
    """Takes all that is noted, and writes nothing."""

    def __init__(self, client: redis.asyncio.Redis, telemetry: Telemetry, *, users_fraction: float = 1.0) -> None:
        super().__init__(RedisExposureLog(client, "unused", kept=1), telemetry, users_fraction=users_fraction)
        self.noted: list[Exposure] = []

    def note(self, exposure: Exposure) -> None:
        self.noted.append(exposure)


def shadow_on(client: redis.asyncio.Redis, lists: ExposureWriter, telemetry: Telemetry) -> ShadowScorer:
    """As the service wires it, but for its thread."""
    return ShadowScorer(ranking_cascade(client, scoring_pool=None), lists, telemetry)
