"""runner: takes a batch through the steps of a cascade: order, deadline, prediction, timing and failure policy live here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from infra.cascade.batch import EMPTY, Batch, Outcome, Removed
from infra.cascade.costs import StageCost
from infra.cascade.kinds import Q, Scorer, Selector, SideEffect, Source, Stage
from infra.cascade.merging import Made, made_by, merged
from infra.cascade.scoring import Scored, Scoring, too_slow
from infra.cascade.steps import FAIL, SETTLED_BY, USE_PREVIOUS, Step, Together
from infra.contracts.decisions import Extent
from infra.contracts.errors import ContractViolation, DeadlineExceeded
from infra.resilience.complaints import Complaints
from infra.resilience.deadline import Clock, Deadline

_log = logging.getLogger("headgate.cascade")


class Cascade(Generic[Q]):
    """An ordered list of steps, checked once, run for every query."""

    def __init__(self, steps: Sequence[Step[Q] | Together[Q]], *, clock: Clock = time.monotonic) -> None:
        """Raises ContractViolation where names repeat, or a step stands where its kind may not."""
        self._groups = [step.steps if isinstance(step, Together) else (step,) for step in steps]
        stages = [step.stage for group in self._groups for step in group]
        _check_order(stages)
        self.source_names = tuple(stage.name for stage in stages if isinstance(stage, Source))
        self.costs = {stage.name: StageCost() for stage in stages}
        self._clock = clock
        self._complaints = Complaints(_log, clock=clock)

    async def run(self, query: Q, deadline: Deadline, *, extents: Mapping[str, Extent] | None = None) -> Outcome:
        """Run every step that applies. Raises what a FAIL step raised, DeadlineExceeded, ContractViolation.

        extents: of an answer that is made again: how much its scorers did, instead of what the clock allows.
        """
        run = _Run(query, deadline, self, self._complaints.note, extents)
        for group in self._groups:
            await run.group([step for step in group if step.stage.applies(query)])
        return run.outcome()


def _check_order(stages: Sequence[Stage[Q]]) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ContractViolation(f"Stage names repeat: {names}; each must be unique.")
    if not stages or not isinstance(stages[0], Source):
        raise ContractViolation(f"A cascade begins with a source; this one has {names}.")
    places = [2 if isinstance(stage, SideEffect) else 1 if isinstance(stage, Selector) else 0 for stage in stages]
    if places != sorted(places):
        raise ContractViolation(f"Selectors come after all that finds, filters or scores, side effects last: {names}.")


class _Run(Generic[Q]):
    """One query's way through the steps."""

    def __init__(
        self,
        query: Q,
        deadline: Deadline,
        cascade: Cascade[Q],
        complain: Callable[[str, str], None],
        extents: Mapping[str, Extent] | None,
    ) -> None:
        self._query = query
        self._deadline = deadline
        self._source_names = cascade.source_names
        self._costs = cascade.costs
        self._clock = deadline.clock
        self._complain = complain
        self._extents_given = extents or {}
        self._batch = EMPTY
        self._scored_by = self._settled_by = ""
        self._degraded = False
        self._stage_ms: dict[str, float] = {}
        self._skipped: dict[str, str] = {}
        self._extents: dict[str, Extent] = {}
        self._removed: list[Removed] = []

    def outcome(self) -> Outcome:
        decided_by = self._scored_by
        if not decided_by:
            decided_by = self._source_names[self._batch.sources[0]] if len(self._batch) else "nothing"
        return Outcome(
            self._batch,
            decided_by,
            self._settled_by,
            self._degraded,
            self._stage_ms,
            self._skipped,
            self._extents,
            self._removed,
        )

    async def group(self, steps: Sequence[Step[Q]]) -> None:
        """One step, or several that see the same batch."""
        if len(steps) == 1:
            await self._step(steps[0], self._batch)
            return
        before = self._batch
        made = await asyncio.gather(*(self._made(step, before) for step in steps), return_exceptions=True)
        for step, result in zip(steps, made, strict=True):
            self._take_in(step, result)

    async def _step(self, step: Step[Q], batch: Batch) -> None:
        if step.refines and self._settled_by:
            self._skipped[step.stage.name] = f"{SETTLED_BY}{self._settled_by}"
            return
        try:
            result: Made | BaseException = await self._made(step, batch)
        except Exception as error:  # noqa: BLE001 - the step's policy says what becomes of it
            result = error
        self._take_in(step, result)

    def _take_in(self, step: Step[Q], result: Made | BaseException) -> None:
        """Put what a step made into the batch; where it failed, do what its policy says."""
        stage = step.stage
        if not isinstance(result, BaseException):
            try:
                self._batch, self._removed = merged(stage, result, self._batch, self._source_names, self._removed)
            except Exception as error:  # noqa: BLE001 - what breaks its kind's promise has failed
                result = error
            else:
                if isinstance(result, Scored) and len(self._batch):
                    self._scored(step, result)
                return
        if step.on_failure is FAIL or not isinstance(result, Exception):
            raise result
        because = f"{type(result).__name__}: {result}"
        self._skipped[stage.name] = because
        self._degraded = self._degraded or step.on_failure is USE_PREVIOUS
        self._complain(stage.name, f"stage {stage.name} failed, {step.on_failure}: {because}")

    def _scored(self, step: Step[Q], scored: Scored) -> None:
        """After a scorer that worked: it has decided, maybe without all that it wanted to do, and may have settled the request."""
        name = step.stage.name
        self._scored_by = name
        if scored.lacking:
            self._skipped[name] = scored.lacking
            self._degraded = self._degraded or step.on_failure is USE_PREVIOUS
        if scored.lacking or scored.done.parts is not None:
            self._extents[name] = scored.done
        if step.settles is not None and step.settles(self._query, self._batch):
            self._settled_by = name

    async def _made(self, step: Step[Q], batch: Batch) -> Made:
        """What the stage gives, within its budget. A native call in a thread runs on, but frees the request."""
        stage, started_s = step.stage, self._clock()
        try:
            if isinstance(stage, SideEffect):
                await stage.act(self._query, self.outcome())
                return None
            if step.budget_ms is None:
                return await self._unhurried(step, batch)
            slot = self._deadline.within_ms(step.budget_ms)
            left_ms = (slot.ends_s - slot.started_s) * 1000
            if left_ms <= 0:
                raise DeadlineExceeded(f"{stage.name} could not start: the deadline passed {-left_ms:.1f} ms ago.")
            return await self._within(step, batch, slot, left_ms)
        finally:
            self._stage_ms[stage.name] = (self._clock() - started_s) * 1000

    async def _unhurried(self, step: Step[Q], batch: Batch) -> Made:
        """Whatever the clock says: all of it, or as much as another run of the query did."""
        stage = step.stage
        if not isinstance(stage, Scorer):
            return await made_by(stage, self._query, batch)
        scoring = Scoring(step, stage, self._query, batch)
        return await scoring.run(self._extents_given.get(stage.name, Extent(scoring.rows)), self._deadline)

    async def _within(self, step: Step[Q], batch: Batch, slot: Deadline, left_ms: float) -> Made:
        """Start only what is predicted to end in time, and free the request when the time is used up."""
        stage, cost = step.stage, self._costs[step.stage.name]
        made: Made
        scoring = Scoring(step, stage, self._query, batch) if isinstance(stage, Scorer) else None
        if scoring is not None:
            planned = scoring.planned(cost, left_ms)
            size = planned.rows
        else:
            size = stage.size(self._query, batch)
            if cost.predict_ms(size) > left_ms:
                cost.forgive()
                raise too_slow(stage.name, cost, size, left_ms)
        try:
            async with asyncio.timeout(left_ms / 1000):
                if scoring is not None:
                    made = await scoring.run(planned, slot)
                else:
                    made = await made_by(stage, self._query, batch)
        except TimeoutError as error:
            cost.note(size, left_ms)
            raise DeadlineExceeded(f"{stage.name} took longer than its {left_ms:.1f} ms.") from error
        share = made.share if isinstance(made, Scored) else 1.0
        cost.note(size, (self._clock() - slot.started_s) * 1000 / share)
        return made
