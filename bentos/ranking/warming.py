"""warming: a snapshot answers recorded requests before any real one sees it, so that the first of those is not slow."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.offline import request_of
from bentos.ranking.query import RankingQuery
from bentos.ranking.schema import RecommendContext, RecommendRequest
from infra.cascade.costs import StageCost
from infra.cascade.runner import Cascade
from infra.contracts.errors import HeadgateError
from infra.eventlog.decisions import RedisDecisionLog
from infra.resilience.deadline import Deadline

_log = logging.getLogger("headgate.warming")

FIRST, LATER = 50, 10
"""Requests for a process's first snapshot, and for each later one: then only what the snapshot brought along is cold."""

_COLD = 5
"""Of the first requests, those that teach the cascade nothing: libraries load and connections open in them."""

_WITHIN_S = 3.0
_SESSION = 3
"""Items of the session that every other made-up request names, so that what a session adds is warm as well."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """requests: answered. recorded: of them, those that were asked for once. first_ms, last_ms: what the first and last took."""

    requests: int
    recorded: int
    first_ms: float
    last_ms: float


class Warmer:
    """Answers requests through a cascade without side effects: nothing is counted, logged or shown."""

    def __init__(self, quiet: Cascade[RankingQuery], log: RedisDecisionLog, *, teaches: dict[str, StageCost]) -> None:
        """quiet: of its own, with the served one's steps but no watchers. teaches: the served one's costs, which it learns for."""
        self._quiet = quiet
        self._log = log
        self._teaches = teaches
        self._is_first = True

    async def warm(self, snapshot: RankingSnapshot) -> Warmed:
        """Within _WITHIN_S. Whatever fails is logged, and the snapshot is served none the less."""
        wanted = FIRST if self._is_first else LATER
        done = Warmed(0, 0, 0.0, 0.0)
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(_WITHIN_S):
                recorded = await self._recorded(wanted)
                requests = (recorded + made_up(snapshot, wanted - len(recorded)))[:wanted]
                for number, request in enumerate(requests):
                    if not self._is_first or number >= _COLD:
                        self._quiet.costs = self._teaches
                    taken_ms = await self._answer(request, snapshot)
                    done = Warmed(number + 1, min(number + 1, len(recorded)), done.first_ms or taken_ms, taken_ms)
        except TimeoutError:
            _log.warning("%s is served before it is warm: %s", snapshot.alias.version, done)
        except Exception:  # noqa: BLE001 - a cold start is better than none
            _log.warning("%s could not be warmed: %s", snapshot.alias.version, done, exc_info=True)
        else:
            _log.info("%s warmed in %.2f s: %s", snapshot.alias.version, time.monotonic() - started_s, done)
        self._is_first = self._is_first and done.requests <= _COLD
        return done

    async def _answer(self, request: RecommendRequest, snapshot: RankingSnapshot) -> float:
        deadline = Deadline.after_ms(_WITHIN_S * 1000)
        await self._quiet.run(RankingQuery.of(request, snapshot), deadline)
        return deadline.elapsed_ms()

    async def _recorded(self, wanted: int) -> list[RecommendRequest]:
        """The newest of the decision log; none where it cannot be read."""
        try:
            entries = await self._log.newest(count=wanted)
        except HeadgateError as error:
            _log.warning("no recorded requests to warm up with: %s", error)
            return []
        found: list[RecommendRequest] = []
        for entry in entries:
            try:
                found.append(request_of(entry.decision()))
            except (HeadgateError, ValueError):  # of another release, or one that named too many items to be kept
                continue
        return found


def made_up(snapshot: RankingSnapshot, wanted: int) -> list[RecommendRequest]:
    """Requests of the snapshot's sample users in turn, every other within a session; of somebody unknown where it has none."""
    content = snapshot.content
    users: Sequence[str] = [user.user_id for user in content.sample_users] or ["nobody"]
    session = [content.items.item_ids[index] for index in content.popular[:_SESSION].tolist()]
    return [
        RecommendRequest(
            user_id=users[number % len(users)],
            context=RecommendContext(recent_items=session if number % 2 else []),
        )
        for number in range(max(0, wanted))
    ]
