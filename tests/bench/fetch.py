"""fetch: the service's own reader at work by itself: one round trip to Redis and the decoding of a user's record, timed."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvloop

from bentos.ranking.content import RankingContent, load_content
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import UserReader
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.tiny_snapshot import RANKING

CALLERS = 4
"""Each asks again as soon as it was answered: more at a time than the service has at half of its peak."""

_WARM_S = 0.5


@dataclass(frozen=True, slots=True)
class FetchReport:
    """Milliseconds from asking to the decoded record; per_s: records a second of all callers."""

    p50_ms: float
    p99_ms: float
    per_s: float


def fetch(store: Path, redis_url: str, *, users: int, top: int, seconds: float) -> FetchReport:
    """Read users of the live snapshot for that long. Raises AssertionError where a record has not `top` candidates."""
    return uvloop.run(_fetch(store, redis_url, users=users, top=top, seconds=seconds))


async def _fetch(store: Path, redis_url: str, *, users: int, top: int, seconds: float) -> FetchReport:
    client = serving_client(redis_url, timeout_s=5.0)
    live: LiveSnapshots[RankingContent] = LiveSnapshots(client, SnapshotStore(str(store), RANKING), load_content)
    await live.check()
    if live.current is None:
        raise AssertionError(f"nothing is live: {live.problem}")
    snapshot, reader, numbers = live.current, UserReader(client, RANKING), itertools.count()
    taken: list[float] = []

    async def caller(until_s: float) -> None:
        while (began := time.perf_counter()) < until_s:
            query = RankingQuery(snapshot, f"u{next(numbers) % users}", 20, [], np.empty(0, np.int32))
            await reader.read(query)
            taken.append(time.perf_counter() - began)
            if query.record is None or len(query.record.item_indices) != top:
                raise AssertionError(f"{query.user_id} has not {top} candidates")

    for length_s in (_WARM_S, seconds):
        taken.clear()
        began = time.perf_counter()
        await asyncio.gather(*(caller(began + length_s) for _ in range(CALLERS)))
    await client.aclose()
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return FetchReport(round(float(p50), 3), round(float(p99), 3), round(len(taken) / seconds, 1))
