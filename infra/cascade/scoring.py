"""scoring: how much of a batch a scorer takes on in the time it has, and its scores put back beside those of the other rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from infra.cascade.batch import Batch
from infra.cascade.costs import StageCost
from infra.cascade.kinds import AnytimeScorer, Q, Scorer
from infra.cascade.steps import Step
from infra.contracts.candidates import Float32s
from infra.contracts.decisions import Extent
from infra.contracts.errors import ContractViolation, DeadlineExceeded
from infra.resilience.deadline import Deadline

_AMPLE = 2.0
"""Where so many times the predicted time is left, a scorer in parts does them all in one call, which is a little faster."""


@dataclass(frozen=True, slots=True)
class Scored:
    """scores: float32 [n], aligned with the batch. done: what was done. lacking: in words what of it was not; empty: nothing.

    lacking_ms: what the parts that were left out would have taken, as long as those that were done.
    """

    scores: Float32s
    done: Extent
    lacking: str
    lacking_ms: float


@dataclass(frozen=True, slots=True)
class Scoring(Generic[Q]):
    """One scorer's step, on one query."""

    step: Step[Q]
    stage: Scorer[Q]
    query: Q
    batch: Batch

    @property
    def rows(self) -> int:
        """Which it takes where time is plenty."""
        head = self.step.head
        return len(self.batch) if head is None else min(len(self.batch), head.most)

    @property
    def least(self) -> int:
        """Rows without which scoring is not worth while."""
        head = self.step.head
        return self.rows if head is None else min(self.rows, head.least)

    def planned(self, cost: StageCost, left_ms: float) -> Extent | None:
        """As many rows as are predicted to fit, and parts where that is not sure; None where too few fit."""
        if isinstance(self.stage, AnytimeScorer):
            work = self.stage.work or cost
            fitting = max(work.size_within(left_ms, most=self.rows), self.least)
            ample = work.is_known and work.predict_ms(fitting) * _AMPLE <= left_ms
            return Extent(fitting, None if ample else self.stage.parts(self.query))
        fitting = cost.size_within(left_ms, most=self.rows)
        return Extent(fitting) if fitting >= self.least else None

    async def run(self, planned: Extent, slot: Deadline) -> Scored:
        """Score. Raises what the stage raises, ContractViolation, ArithmeticError, DeadlineExceeded where not one part was done."""
        batch, rows = self.batch, planned.rows
        order = None if rows >= len(batch) else np.argsort(-batch.scores, kind="stable")
        head = batch if order is None else batch.take(order[:rows])
        lacking = [] if rows == self.rows else [f"scored the best {rows:,} of {self.rows:,} rows"]
        lacking_ms = 0.0
        if planned.parts is None or not isinstance(self.stage, AnytimeScorer):
            done, scores = planned, await self.stage.score_by(self.query, head, slot)
        else:
            partial = await self.stage.score_parts(self.query, head, slot, most=planned.parts)
            done, scores, parts = Extent(rows, partial.done), partial.scores, self.stage.parts(self.query)
            if partial.done < 1:
                raise DeadlineExceeded(f"{self.stage.name} had no time for one of its {parts} parts.")
            lacking_ms = partial.work_ms * (parts / partial.done - 1)
            lacking += [] if partial.done == parts else [f"did {partial.done} of {parts} parts"]
        _check(self.stage, scores, rows)
        if order is not None:
            scores = _behind(scores, order, len(batch))
        return Scored(scores, done, ", ".join(lacking), lacking_ms)


def _check(stage: Scorer[Q], scores: Float32s, rows: int) -> None:
    if scores.dtype != np.float32 or scores.ndim != 1:
        raise ContractViolation(f"{stage.name} gave scores {scores.dtype} {scores.shape}; wanted float32 [n].")
    if len(scores) != rows:
        raise ContractViolation(f"{stage.name} gave scores with {len(scores)} rows for {rows} candidates.")
    if not np.isfinite(scores).all():
        raise ArithmeticError(f"{int((~np.isfinite(scores)).sum())} of {rows} scores are not finite")


def _behind(scores: Float32s, order: np.ndarray, n: int) -> Float32s:
    """float32 [n]: the head's scores, and below the lowest of them the other rows as they were, in steps of one, or of so much
    that float32 tells them apart."""
    lowest = scores.min()
    step = max(np.float32(1), 2 * np.spacing(np.abs(lowest)))
    out = np.empty(n, np.float32)
    out[order[: len(scores)]] = scores
    out[order[len(scores) :]] = lowest - step * np.arange(1, n - len(scores) + 1, dtype=np.float32)
    return out
