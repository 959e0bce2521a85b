"""cascade_overshoot: how much later than its budget a request is freed from a native call that takes longer, idle and at load.

The feed's own cascade in this process, over a Redis and a snapshot of its own. Some requests meet a stage more, whose native call
takes a multiple of its budget and cannot be stopped; it has a thread of its own, so that the scoring of the others goes on beside
it, which a worker's single thread would not allow: the harder case.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import redis.asyncio
import uvloop
import xgboost

from bentos.ranking.content import RankingContent, RankingSnapshot, load_content
from bentos.ranking.pipeline import ranking_steps
from bentos.ranking.query import RankingQuery
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.trees import RankerScorer, predict
from infra.cascade.batch import Batch
from infra.cascade.costs import StageCost
from infra.cascade.kinds import Scorer
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.cascade.steps import USE_PREVIOUS, Step
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.candidates import Float32s
from infra.resilience.deadline import Deadline
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import SnapshotStore
from tests.bench.bench_serve import ranker
from tests.bench.report import Report
from tests.fixtures import tiny_snapshot
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage

BUDGET_MS = 8.0
LONGER = 3.0
"""Times its budget, that the stage's call takes."""

LOAD_FRACTION = 0.7
_USERS, _ITEMS, _TOP, _TREES = 500, 20_000, 1000, 300
_EVERY = 10
"""Of so many requests under load one meets the stage."""

_CALLERS = (2, 4, 8, 16)
_PEAK_S = 3.0
_REQUEST_MS = 1000.0


class OverrunningScorer(Scorer[RankingQuery]):
    """Takes LONGER times its budget, in native code, whatever the batch."""

    name = "overrunning"

    def __init__(self, booster: xgboost.Booster) -> None:
        self._lane = Lane("overrunning")
        thousand = np.random.default_rng(1).random((1000, len(RANKER_FEATURES))).astype(np.float32)
        taken_s = min(_timed_s(partial(predict, booster, thousand)) for _ in range(5))
        self._call = partial(
            predict, booster, np.tile(thousand, (int(np.ceil(LONGER * BUDGET_MS / 1000 / taken_s)), 1))
        )

    async def score(self, query: RankingQuery, batch: Batch) -> Float32s:
        """Never in time."""
        return (await self._lane.run(self._call))[: len(batch)]


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """The part `overshoot`."""
    sys.setswitchinterval(0.0005)  # as the service does
    logging.getLogger("headgate.cascade").setLevel(logging.CRITICAL)  # every overrun is wanted
    with tempfile.TemporaryDirectory() as folder, _stage(Path(folder)) as stage:
        idle, load, controls = uvloop.run(_measure(stage, seconds=chosen.overshoot_s))
    report.figures["stage_overshoot_ms_p99_idle"] = round(float(np.percentile(idle, 99)), 3)
    report.figures["stage_overshoot_ms_p99_load70"] = round(float(np.percentile(load, 99)), 3)
    report.controls |= controls | {
        "overshoot_ms_p50_idle": round(float(np.median(idle)), 3),
        "overshoot_ms_p50_load70": round(float(np.median(load)), 3),
        "overshoots_seen_idle": len(idle),
        "overshoots_seen_load70": len(load),
        "overshoot_budget_ms": BUDGET_MS,
    }


@contextmanager
def _stage(folder: Path) -> Iterator[Stage]:
    """Redis, and a live snapshot with a ranker of full size."""
    server = RedisProcess(folder)
    server.start()
    try:
        stage = Stage(folder / "store", server.url)
        with patch.object(tiny_snapshot, "tiny_ranker", lambda *, trees: ranker(_TREES)):
            stage.flip_live(world=tiny_snapshot.tiny_world(users=_USERS, items=_ITEMS), k=_TOP)
        yield stage
    finally:
        server.stop()


async def _measure(stage: Stage, *, seconds: float) -> tuple[list[float], list[float], dict[str, float]]:
    client = serving_client(stage.redis_url, timeout_s=5.0)
    store = SnapshotStore(str(stage.root), tiny_snapshot.RANKING)
    live: LiveSnapshots[RankingContent] = LiveSnapshots(client, store, load_content)
    await live.check()
    if live.current is None:
        raise RuntimeError(f"nothing is live: {live.problem}")
    feed = _Feed(client, live.current)
    for _ in range(50):
        await feed.request()
    idle = [await feed.overshoot_ms(pause_s=LONGER * BUDGET_MS / 1000) for _ in range(int(20 * seconds))]
    peak_per_s = max([await feed.closed_loop(callers, _PEAK_S) for callers in _CALLERS])
    load, whole_fraction = await feed.open_loop(LOAD_FRACTION * peak_per_s, seconds)
    await client.aclose()
    controls = {"overshoot_peak_per_s": round(peak_per_s, 1), "overshoot_whole_fraction": round(whole_fraction, 4)}
    return [ms for ms in idle if ms is not None], load, controls


class _Feed:
    """The cascade as the service runs it, and the same with the overrunning stage after the ranker."""

    def __init__(self, client: redis.asyncio.Redis, snapshot: RankingSnapshot) -> None:
        self._snapshot = snapshot
        lane, numbers = Lane("scoring"), itertools.count()
        steps = ranking_steps(client, lane=lane)
        self._numbers = numbers
        self._whole = Cascade(steps)
        overrunning = OverrunningScorer(snapshot.content.ranker)
        at = 1 + next(at for at, step in enumerate(steps) if isinstance(step.stage, RankerScorer))
        extra = Step(overrunning, on_failure=USE_PREVIOUS, budget_ms=BUDGET_MS)
        self._with_overrun = Cascade([*steps[:at], extra, *steps[at:]])

    def _asked(self) -> tuple[RankingQuery, Deadline]:
        user = f"u{next(self._numbers) % _USERS}"
        query = RankingQuery.of(RecommendRequest(user_id=user), self._snapshot)
        return query, Deadline.after_ms(_REQUEST_MS)

    async def request(self) -> bool:
        """One answer; whether all of it was done in time."""
        return not (await self._whole.run(*self._asked())).degraded

    async def overshoot_ms(self, *, pause_s: float = 0.0) -> float | None:
        """How long the stage held a request beyond its budget; None where its thread still ran the call before."""
        await asyncio.sleep(pause_s)
        name = OverrunningScorer.name
        self._with_overrun.costs[name] = StageCost()  # else the cascade would know better than to start it
        outcome = await self._with_overrun.run(*self._asked())
        if "took longer than" not in outcome.skipped.get(name, ""):
            return None
        return outcome.stage_ms[name] - BUDGET_MS

    async def closed_loop(self, callers: int, seconds: float) -> float:
        """Whole answers a second."""
        until_s, whole = time.monotonic() + seconds, 0

        async def caller() -> None:
            nonlocal whole
            while time.monotonic() < until_s:
                whole += await self.request()

        await asyncio.gather(*(caller() for _ in range(callers)))
        return whole / seconds

    async def open_loop(self, per_s: float, seconds: float) -> tuple[list[float], float]:
        """Poisson arrivals; every _EVERYth meets the stage: its overshoots, and the fraction of whole answers of the others."""
        due_s = np.cumsum(np.random.default_rng(2).exponential(1 / per_s, int(per_s * seconds)))
        began_s, tasks, probes = time.monotonic(), [], []
        for number, due in enumerate(due_s.tolist()):
            await asyncio.sleep(max(0.0, due - (time.monotonic() - began_s)))
            if number % _EVERY:
                tasks.append(asyncio.ensure_future(self.request()))
            else:
                probes.append(asyncio.ensure_future(self.overshoot_ms()))
        whole = await asyncio.gather(*tasks)
        return [ms for ms in await asyncio.gather(*probes) if ms is not None], sum(whole) / len(whole)


def _timed_s(call: partial[Float32s]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
