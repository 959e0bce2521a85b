"""runner: takes a batch through the steps of a cascade: order, deadline, counting, timing and failure policy live here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Generic, cast

import numpy as np

from infra.cascade.batch import EMPTY, Batch, Column, Outcome, Removed
from infra.cascade.kinds import Filter, Found, Hydrator, Q, Removal, Scorer, Selector, SideEffect, Source, Stage
from infra.contracts.errors import ContractViolation, DeadlineExceeded
from infra.resilience.complaints import Complaints
from infra.resilience.deadline import Clock, Deadline

_log = logging.getLogger("headgate.cascade")


class OnFailure(StrEnum):
    """What a step's failure (an error, or its budget used up) does to the request."""

    USE_PREVIOUS = "USE_PREVIOUS"
    """The batch goes on as it was before the step; the answer is degraded."""
    SKIP = "SKIP"
    """The same, for steps that the answer does not lean on: not degraded."""
    FAIL = "FAIL"
    """The request fails."""


USE_PREVIOUS, SKIP, FAIL = OnFailure.USE_PREVIOUS, OnFailure.SKIP, OnFailure.FAIL


@dataclass(frozen=True, slots=True)
class Step(Generic[Q]):
    """A stage as it is wired. budget_ms: the most it may take, or None for what must run whatever the clock says."""

    stage: Stage[Q]
    on_failure: OnFailure = field(kw_only=True)
    budget_ms: float | None = field(kw_only=True)


_ORDER: tuple[tuple[type, ...], ...] = ((Source, Hydrator, Filter, Scorer), (Selector,), (SideEffect,))


class Cascade(Generic[Q]):
    """An ordered list of steps, checked once, run for every query."""

    def __init__(self, steps: Sequence[Step[Q]], *, clock: Clock = time.monotonic) -> None:
        """Raises ContractViolation where names repeat, or a step stands where its kind may not."""
        names = [step.stage.name for step in steps]
        if len(set(names)) != len(names):
            raise ContractViolation(f"Stage names repeat: {names}; each must be unique.")
        if not steps or not isinstance(steps[0].stage, Source):
            raise ContractViolation(f"A cascade begins with a source; this one has {names}.")
        places = [next(at for at, kinds in enumerate(_ORDER) if isinstance(step.stage, kinds)) for step in steps]
        if places != sorted(places):
            raise ContractViolation(
                f"Selectors come after all that finds, filters or scores, side effects last: {names}."
            )
        self.source_names = tuple(step.stage.name for step in steps if isinstance(step.stage, Source))
        self._steps = tuple(steps)
        self._clock = clock
        self._complaints = Complaints(_log, clock=clock)

    async def run(self, query: Q, deadline: Deadline) -> Outcome:
        """Run every step that applies. Raises what a FAIL step raised, DeadlineExceeded, ContractViolation."""
        run = _Run(query, deadline, self.source_names, self._clock, self._complaints.note)
        for step in self._steps:
            if step.stage.applies(query):
                await run.step(step)
        return run.outcome()


class _Run(Generic[Q]):
    """One query's way through the steps."""

    def __init__(
        self,
        query: Q,
        deadline: Deadline,
        source_names: tuple[str, ...],
        clock: Clock,
        complain: Callable[[str, str], None],
    ) -> None:
        self._query = query
        self._deadline = deadline
        self._source_names = source_names
        self._clock = clock
        self._complain = complain
        self._batch = EMPTY
        self._scored_by = ""
        self._degraded = False
        self._stage_ms: dict[str, float] = {}
        self._skipped: dict[str, str] = {}
        self._removed: list[Removed] = []

    def outcome(self) -> Outcome:
        decided_by = self._scored_by
        if not decided_by:
            decided_by = self._source_names[self._batch.sources[0]] if len(self._batch) else "nothing"
        return Outcome(self._batch, decided_by, self._degraded, self._stage_ms, self._skipped, self._removed)

    async def step(self, step: Step[Q]) -> None:
        stage = step.stage
        started = self._clock()
        try:
            if step.budget_ms is None:
                await self._apply(stage)
            else:
                left_ms = self._deadline.remaining_ms()
                if left_ms <= 0:
                    raise DeadlineExceeded(f"{stage.name} could not start: the deadline passed {-left_ms:.1f} ms ago.")
                await self._within(stage, min(left_ms, step.budget_ms))
        except ContractViolation:
            raise
        except Exception as error:
            if step.on_failure is FAIL:
                raise
            self._skipped[stage.name] = f"{type(error).__name__}: {error}"
            self._degraded = self._degraded or step.on_failure is USE_PREVIOUS
            self._complain(stage.name, f"stage {stage.name} failed, {step.on_failure}: {type(error).__name__}: {error}")
        finally:
            self._stage_ms[stage.name] = (self._clock() - started) * 1000

    async def _within(self, stage: Stage[Q], budget_ms: float) -> None:
        """Frees the request when the budget is used up; native work in a thread runs on until it ends by itself."""
        try:
            async with asyncio.timeout(budget_ms / 1000):
                await self._apply(stage)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{stage.name} took longer than its {budget_ms:.1f} ms.") from error

    async def _apply(self, stage: Stage[Q]) -> None:
        query, batch = self._query, self._batch
        if isinstance(stage, Source):
            self._add(stage, await stage.find(query, batch))
        elif isinstance(stage, Hydrator):
            columns = await stage.hydrate(query, batch)
            for name, column in columns.items():
                _check_rows(stage, f"column {name}", len(column), len(batch))
            self._batch = replace(batch, columns={**batch.columns, **columns})
        elif isinstance(stage, Filter):
            self._take_out(stage, await stage.remove(query, batch))
        elif isinstance(stage, Scorer):
            scores = await stage.score(query, batch)
            if scores.dtype != np.float32 or scores.ndim != 1:
                raise ContractViolation(f"{stage.name} gave scores {scores.dtype} {scores.shape}; wanted float32 [n].")
            _check_rows(stage, "scores", len(scores), len(batch))
            if not np.isfinite(scores).all():
                raise ArithmeticError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
            self._batch = replace(batch, scores=scores)
            if len(batch):
                self._scored_by = stage.name
        elif isinstance(stage, Selector):
            rows = await stage.select(query, batch)
            if len(rows) and (len(np.unique(rows)) != len(rows) or rows.min() < 0 or rows.max() >= len(batch)):
                raise ContractViolation(f"{stage.name} selected rows twice or outside of the {len(batch)} candidates.")
            self._batch = batch.take(rows)
        elif isinstance(stage, SideEffect):
            await stage.act(query, self.outcome())

    def _add(self, stage: Source[Q], found: Found) -> None:
        batch, ids = self._batch, found.ids
        _check_rows(stage, "scores", len(found.scores), len(ids))
        columns = dict(found.columns or {})
        for name, column in columns.items():
            _check_rows(stage, f"column {name}", len(column), len(ids))
        number = self._source_names.index(stage.name)
        added = Batch(ids, found.scores, np.full(len(ids), number, np.uint8), columns)
        if not len(batch):
            self._batch = added
            return
        if not len(added):
            return
        added = added.take(~np.isin(ids, batch.ids))
        shared = batch.columns.keys() & columns.keys()
        joined = {name: np.concatenate([batch.columns[name], added.columns[name]]) for name in shared}
        self._batch = Batch(
            np.concatenate([batch.ids, added.ids]),
            np.concatenate([batch.scores, added.scores]),
            np.concatenate([batch.sources, added.sources]),
            cast("dict[str, Column]", joined),
        )

    def _take_out(self, stage: Filter[Q], removals: list[Removal]) -> None:
        batch = self._batch
        gone = np.zeros(len(batch), np.bool_)
        for removal in removals:
            if removal.rows.dtype != np.bool_:
                raise ContractViolation(f"{stage.name} gave rows {removal.rows.dtype}; wanted bool, one a candidate.")
            _check_rows(stage, "rows", len(removal.rows), len(batch))
            fresh = removal.rows & ~gone
            if fresh.any():
                self._removed.append(Removed(batch.ids[fresh], by=stage.name, because=removal.because))
                gone |= fresh
        if gone.any():
            self._batch = batch.take(~gone)


def _check_rows(stage: Stage[Q], what: str, seen: int, wanted: int) -> None:
    if seen != wanted:
        raise ContractViolation(f"{stage.name} gave {what} with {seen} rows for {wanted} candidates.")
