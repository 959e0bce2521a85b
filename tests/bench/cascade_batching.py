"""cascade_batching: native calls of concurrent callers, each by itself and shared: throughput and p99 against concurrency."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import uvloop
import xgboost
from bentoml._internal.marshal.dispatcher import CorkDispatcher, NonBlockSema

from bentos.ranking.trees import MOST_ROWS, predict
from bentos.web.batching import Batcher
from infra.cascade.lane import Lane
from infra.catalog.features.ranking import LAST_ITEMS, NETWORK_FEATURES, NETWORK_HEAD, RANKER_FEATURES
from infra.config import console
from infra.contracts.candidates import Float32s
from infra.resilience.deadline import Deadline
from infra.snapshots.network import Network
from spark_jobs.training import network
from spark_jobs.training.examples import Examples
from spark_jobs.training.one_list import SHOWN
from tests.bench.bench_serve import ranker
from tests.bench.report import Report

CALLERS = (1, 2, 4, 8, 16, 32)

TREES = 300

BATCHED_BY_DEFAULT = ("trees",)
"""The models whose calls the service shares; the promise is about these. The others are measured to show why they are not."""

_WIDTH = len(RANKER_FEATURES)
_SETTLE_S = 0.1

Score = Callable[[Float32s], Float32s]
Ask = Callable[[Float32s], Awaitable[Float32s]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One model at one size of request: rows, and inputs a row."""

    model: str
    rows: int
    inputs: int
    score: Score

    @property
    def name(self) -> str:
        """As its figures begin."""
        return f"{self.model}_{self.rows}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A slice of closed loop."""

    per_s: float
    p99_ms: float


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """The part `batching`: figures of the models that share calls by default, the whole curve among the controls."""
    sys.setswitchinterval(0.0005)  # as the service does
    ratios: list[float] = []
    for curve in curves():
        found = uvloop.run(_curve(curve, repeats=chosen.repeats, slice_s=chosen.slice_s))
        for callers, by_mode in found.items():
            for mode, slices in by_mode.items():
                start = f"curve_{curve.name}_{callers}_{mode}"
                report.controls[f"{start}_per_s"] = round(statistics.median(seen.per_s for seen in slices), 1)
                report.controls[f"{start}_p99_ms"] = round(statistics.median(seen.p99_ms for seen in slices), 3)
                if mode != "alone":
                    report.controls[f"{start}_ratio"] = ratio(slices, by_mode["alone"])
            if curve.model in BATCHED_BY_DEFAULT:
                ratios.append(ratio(by_mode["shared"], by_mode["alone"]))
            line = " ".join(
                f"{mode} {statistics.median(s.per_s for s in slices):,.0f}/s" for mode, slices in by_mode.items()
            )
            console.say(f"{curve.name}, {callers} callers: {line}")
    report.figures["batching_worst_ratio"] = min(ratios)
    report.figures["batching_best_ratio"] = max(ratios)
    report.controls["batching_repeats"] = chosen.repeats
    report.controls["batching_trees"] = TREES


def ratio(shared: Sequence[Seen], alone: Sequence[Seen]) -> float:
    """Throughput of the one over the other: the median over slices that followed each other."""
    return round(statistics.median(a.per_s / b.per_s for a, b in zip(shared, alone, strict=True)), 3)


def curves() -> list[Curve]:
    """Light: a dot product. Trees: as many as are trained. Network: as training exports it."""
    rng = np.random.default_rng(4)
    weights = rng.random(_WIDTH).astype(np.float32)
    booster = xgboost.Booster()
    booster.load_model(bytearray(ranker(TREES)))
    booster.set_param({"nthread": 1})
    trees, shipped = partial(predict, booster), shipped_network()
    return [
        Curve("light", 1000, _WIDTH, lambda rows: rows @ weights),
        *(Curve("trees", rows, _WIDTH, trees) for rows in (1000, 200, 1)),
        *(Curve("network", rows, len(NETWORK_FEATURES), shipped) for rows in (NETWORK_HEAD, 1)),
    ]


def shipped_network() -> Score:
    """A network as training exports it and as a snapshot loads it, each call filled up to ROWS; it learnt random numbers."""
    rng, (users, rows) = np.random.default_rng(4), (60, 40)
    some = Examples(
        users=np.arange(users, dtype=np.int32),
        counts=np.full(users, rows, np.int64),
        n_wanted=np.ones(users, np.int32),
        matrix=rng.random((users * rows, len(RANKER_FEATURES))).astype(np.float32),
        grades=(rng.random(users * rows) < 1 / rows).astype(np.uint8),
        products=rng.random((users * rows, LAST_ITEMS)).astype(np.float32),
        popular_hits=np.zeros((users, SHOWN), np.bool_),
    )
    some = some.where(some.found())
    inputs = network.inputs_of(some, trees=some.matrix[:, 0], light=some.matrix[:, 1])
    learnt = network.fit(some, inputs, seed=5)
    return Network(network.exported(learnt), inputs=len(NETWORK_FEATURES)).scores


async def _curve(curve: Curve, *, repeats: int, slice_s: float) -> dict[int, dict[str, list[Seen]]]:
    """By callers and mode; the modes take turns, so that what disturbs one disturbs the others."""
    rng = np.random.default_rng(6)
    requests = [rng.random((curve.rows, curve.inputs)).astype(np.float32) for _ in range(8)]
    lanes = [Lane(f"bench-{mode}") for mode in ("alone", "shared", "dispatcher")]
    modes = {"alone": _alone(curve.score, lanes[0]), "shared": _shared(curve.score, lanes[1])}
    found: dict[int, dict[str, list[Seen]]] = {callers: {} for callers in CALLERS}
    dispatch, dispatcher = _dispatched(curve.score, lanes[2])
    modes["dispatcher"] = dispatch
    for ask in modes.values():
        await _closed_loop(ask, requests, callers=4, seconds=_SETTLE_S)
    for callers in CALLERS:
        for _ in range(repeats):
            for mode, ask in modes.items():
                seen = await _closed_loop(ask, requests, callers=callers, seconds=slice_s)
                found[callers].setdefault(mode, []).append(seen)
    dispatcher.shutdown()
    for lane in lanes:
        lane.close()
    return found


def _alone(score: Score, lane: Lane) -> Ask:
    return lambda rows: lane.run(partial(score, rows))


def _shared(score: Score, lane: Lane) -> Ask:
    batcher: Batcher[Score] = Batcher(lane, lambda model, rows: model(rows), most_rows=MOST_ROWS)
    return lambda rows: batcher.score(score, rows, Deadline.after_ms(60_000))


def _dispatched(score: Score, lane: Lane) -> tuple[Ask, CorkDispatcher[Float32s, Float32s]]:
    """BentoML's own dispatcher, at its best: one who finds it idle goes past it."""

    async def together(batches: Sequence[Float32s]) -> Sequence[Float32s]:
        scores = await lane.run(partial(score, batches[0] if len(batches) == 1 else np.concatenate(batches)))
        return np.split(scores, np.cumsum([len(rows) for rows in batches])[:-1])

    def overloaded() -> Float32s:
        raise RuntimeError("the dispatcher shed a request")

    busy = NonBlockSema(1)
    dispatcher: CorkDispatcher[Float32s, Float32s] = CorkDispatcher(
        3_600_000, MOST_ROWS, shared_sema=busy, fallback=overloaded, get_batch_size=lambda rows: len(rows)
    )
    queued = dispatcher(together)

    async def ask(rows: Float32s) -> Float32s:
        if busy.is_locked() or dispatcher._queue:  # type: ignore[no-untyped-call]
            scores = await queued(rows)
            return overloaded() if scores is None else scores
        busy.acquire()  # type: ignore[no-untyped-call]
        try:
            return await lane.run(partial(score, rows))
        finally:
            busy.release()  # type: ignore[no-untyped-call]

    return ask, dispatcher


async def _closed_loop(ask: Ask, requests: Sequence[Float32s], *, callers: int, seconds: float) -> Seen:
    """Each caller asks again as soon as it was answered."""
    taken: list[float] = []
    began = time.perf_counter()

    async def caller(number: int) -> None:
        while (asked := time.perf_counter()) - began < seconds:
            await ask(requests[number % len(requests)])
            taken.append(time.perf_counter() - asked)
            number += 1

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return Seen(len(taken) / (time.perf_counter() - began), float(np.percentile(taken, 99)) * 1000)
