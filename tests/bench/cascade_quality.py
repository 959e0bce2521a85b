"""cascade_quality: what each stage of the feed's cascade adds: the cascade itself over a snapshot of an earlier moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.pipeline import steps_with
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import checked_record
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.sealed import SealedSnapshots, SealedUsers
from infra.cascade.batch import Batch, Column
from infra.cascade.kinds import Hydrator, Scorer
from infra.cascade.runner import Cascade
from infra.cascade.steps import SKIP, Step
from infra.contracts.candidates import Int32s
from infra.contracts.metrics import ndcg_at_k
from infra.nearline.pending import Seen
from infra.resilience.deadline import Deadline
from infra.snapshots.versions import SnapshotStore, Version
from tests.bench.held_out import Later, Moment

K = 10
RESAMPLES = 1000
_UNHURRIED_MS = 3_600_000.0

Steps = list[Step[RankingQuery]]


@dataclass(frozen=True, slots=True)
class Judged:
    """NDCG@10 of each moment, float64 [moments], by where in the cascade the list was looked at: "sources" after all that finds
    and filters, each scorer's name after it, "shown" at the end. settled: bool [moments], where an early scorer was sure."""

    ndcg: Mapping[str, NDArray[np.float64]]
    settled: NDArray[np.bool_]

    def mean(self, stage: str) -> float:
        """Over the moments."""
        return round(float(self.ndcg[stage].mean()), 4)

    def gain(self, stage: str, over: str, *, seed: int = 0) -> tuple[float, float, float]:
        """The mean gain, and its 95 % interval by a paired bootstrap over the moments."""
        return gain(self.ndcg[stage], self.ndcg[over], seed=seed)


def gain(one: NDArray[np.float64], other: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean of `one - other`, and its 95 % interval by RESAMPLES paired resamples (Efron's percentile bootstrap)."""
    difference = one - other
    drawn = np.random.default_rng(seed).integers(0, len(difference), (RESAMPLES, len(difference)))
    means = difference[drawn].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)


def judge(
    version: Version,
    later: Later,
    asked: Sequence[Moment],
    *,
    store: str,
    wired: Callable[[Steps], Steps] = lambda steps: steps,
) -> Judged:
    """Ask the cascade for a list at each moment, and look at it after each of its scorers, those that are off by default too.

    wired: changes the steps first.
    """
    snapshot, users = SealedSnapshots(SnapshotStore(store, version.application)).get(version.version)
    snapshot = replace(snapshot, content=replace(snapshot.content, off=frozenset()))
    users.look_up([moment.user_id for moment in asked])
    reader, keeper = _Reader(users), _Keeper()
    cascade = Cascade(_watched(wired(steps_with(reader, lane=None)), keeper))
    ndcg: dict[str, list[float]] = {}
    settled = np.zeros(len(asked), np.bool_)

    async def ask_all() -> None:
        for at, moment in enumerate(asked):
            request = RecommendRequest.model_validate({"user_id": moment.user_id, "n": K})
            query = RankingQuery.of(request, snapshot, board=later.board(moment.now_us))
            query.now_us = moment.now_us
            entity = ("user", moment.user_id)
            reader.seen = Seen(*entity, moment.state, 0, (), True, (), ())
            keeper.tops = {}
            outcome = await cascade.run(query, Deadline.after_ms(_UNHURRIED_MS))
            settled[at] = bool(outcome.settled_by)
            names = snapshot.content.items.item_ids
            last: NDArray[np.int32] = np.empty(0, np.int32)
            for stage in keeper.stages:
                last = keeper.tops.get(stage, last)
                ndcg.setdefault(stage, []).append(_ndcg(last, names, moment))
            ndcg.setdefault("shown", []).append(_ndcg(outcome.batch.ids, names, moment))

    asyncio.run(ask_all())
    return Judged({stage: np.array(values) for stage, values in ndcg.items()}, settled)


def _ndcg(ids: NDArray[np.int32], names: Sequence[str], moment: Moment) -> float:
    hits = np.array([names[index] in moment.wanted for index in ids[:K].tolist()], np.bool_)
    return ndcg_at_k(hits, n_relevant=len(moment.wanted), k=K)


class _Reader:
    """What Redis would hold of a user at a moment."""

    def __init__(self, users: SealedUsers) -> None:
        self._users = users
        self.seen: Seen | None = None

    async def read(self, query: RankingQuery) -> None:
        payload = self._users.record(query.user_id)
        record = None if payload is None else checked_record(payload, n_items=query.snapshot.content.n_items)
        query.learn(record, self.seen)

    async def older(self, query: RankingQuery) -> Int32s:
        return np.frombuffer(self._users.older(query.user_id), "<i4")


class _Keeper:
    """The best K after each place that is looked at."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.tops: dict[str, NDArray[np.int32]] = {}


class _Look(Hydrator[RankingQuery]):
    """Keeps the best K of the batch; adds no column."""

    def __init__(self, keeper: _Keeper, stage: str) -> None:
        self.name = f"look_after_{stage}"
        self._keeper = keeper
        self._stage = stage
        keeper.stages.append(stage)

    async def hydrate(self, query: RankingQuery, batch: Batch) -> Mapping[str, Column]:
        """Nothing new."""
        best = np.argsort(-batch.scores, kind="stable")[:K]
        self._keeper.tops[self._stage] = batch.ids[best]
        return {}


def _watched(steps: Steps, keeper: _Keeper) -> Steps:
    """The steps without a clock, with a look before the first scorer and one after each."""
    out: Steps = []
    for step in steps:
        if isinstance(step.stage, Scorer) and not keeper.stages:
            out.append(Step(_Look(keeper, "sources"), on_failure=SKIP, budget_ms=None))
        out.append(replace(step, budget_ms=None))
        if isinstance(step.stage, Scorer):
            out.append(Step(_Look(keeper, step.stage.name), on_failure=SKIP, budget_ms=None))
    return out
