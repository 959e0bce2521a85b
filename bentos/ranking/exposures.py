"""exposures: the lists that were shown, on their way to the log, and of which users they are."""

from __future__ import annotations

from bentos.ranking.feedback import now_utc
from bentos.ranking.query import RankingQuery
from bentos.ranking.queued import QueuedWriter
from bentos.ranking.telemetry import Telemetry
from infra.cascade.batch import Outcome
from infra.contracts.canaries import bucket
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId
from infra.eventlog.protocol import ExposureLog

BATCH = 200
"""Lists a write: about 1 ms of Redis, and 2 ms of the event loop."""

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


class ExposureWriter(QueuedWriter[Exposure]):
    """Writes the lists that were shown."""

    def __init__(self, log: ExposureLog, telemetry: Telemetry, *, users_fraction: float = 1.0) -> None:
        """users_fraction: of the users, whose lists are logged."""
        super().__init__(log.append, telemetry, name="exposures", batch=BATCH)
        self._users_fraction = users_fraction

    def wants(self, user_id: str) -> bool:
        """Whether that user's lists are logged: always the same answer, in every process."""
        return self._users_fraction >= 1.0 or bucket(user_id, _SALT) < self._users_fraction
