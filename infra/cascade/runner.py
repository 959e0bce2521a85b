"""runner: takes a batch through the steps of a cascade: order, deadline, prediction, timing and failure policy live here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from infra.cascade.batch import EMPTY, Batch, Outcome, Reason, Removed
from infra.cascade.costs import StageCost
from infra.cascade.kinds import Q, Scorer, Selector, SideEffect, Source, Stage
from infra.cascade.lane import LaneBusy
from infra.cascade.merging import Made, made_by, merged
from infra.cascade.scoring import Scored, Scoring
from infra.cascade.steps import FAIL, SETTLED_BY, USE_PREVIOUS, Step, Together
from infra.contracts.decisions import Extent
from infra.contracts.errors import ContractViolation, DeadlineExceeded, DependencyUnavailable
from infra.resilience.complaints import Complaints
from infra.resilience.deadline import Clock, Deadline

_log = logging.getLogger("headgate.cascade")


class Cascade(Generic[Q]):
    """An ordered list of steps, checked once, run for every query."""

    def __init__(
        self,
        steps: Sequence[Step[Q] | Together[Q]],
        *,
        clock: Clock = time.monotonic,
        complain: Callable[[str, str], None] | None = None,
    ) -> None:
        """Raises ContractViolation where names repeat, or a step stands where its kind may not.

        complain: is told of each stage that failed, by its name and in words; None: warnings in the log.
        """
        self._groups = [step.steps if isinstance(step, Together) else (step,) for step in steps]
        stages = [step.stage for group in self._groups for step in group]
        _check_order(stages)
        self.source_names = tuple(stage.name for stage in stages if isinstance(stage, Source))
        self.costs = {stage.name: StageCost() for stage in stages}
        self._clock = clock
        self._complain = complain or Complaints(_log, clock=clock).note

    async def run(self, query: Q, deadline: Deadline, *, extents: Mapping[str, Extent] | None = None) -> Outcome:
        """Run every step that applies. Raises what a FAIL step raised, DeadlineExceeded, ContractViolation.

        extents: of an answer that is made again: how much its scorers did, instead of what the clock allows.
        """
        run = _Run(query, deadline, self, self._complain, extents)
        for group in self._groups:
            await run.group(group)
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
        self._began_s = deadline.clock()
        self._complain = complain
        self._extents_given = extents or {}
        self._batch = EMPTY
        self._scored_by = self._settled_by = ""
        self._degraded = False
        self._stage_ms: dict[str, float] = {}
        self._started_ms: dict[str, float] = {}
        self._skipped: dict[str, str] = {}
        self._reasons: dict[str, Reason] = {}
        self._extents: dict[str, Extent] = {}
        self._removed: list[Removed] = []

    def outcome(self) -> Outcome:
        decided_by = self._scored_by
        if not decided_by:
            decided_by = self._source_names[self._batch.sources[0]] if len(self._batch) else "nothing"
        return Outcome(
            batch=self._batch,
            decided_by=decided_by,
            settled_by=self._settled_by,
            degraded=self._degraded,
            stage_ms=self._stage_ms,
            started_ms=self._started_ms,
            skipped=self._skipped,
            reasons=self._reasons,
            extents=self._extents,
            removed=self._removed,
        )

    async def group(self, steps: Sequence[Step[Q]]) -> None:
        """One step, or several that see the same batch; where one of them fails the request, the others are given up."""
        wanted = [step for step in steps if self._is_wanted(step)]
        if len(wanted) == 1:
            self._take_in(wanted[0], await self._tried(wanted[0], self._batch))
        elif wanted:
            before = self._batch
            try:
                async with asyncio.TaskGroup() as together:
                    tasks = [together.create_task(self._tried(step, before)) for step in wanted]
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            for step, task in zip(wanted, tasks, strict=True):
                self._take_in(step, task.result())

    def _is_wanted(self, step: Step[Q]) -> bool:
        name = step.stage.name
        try:
            if not step.stage.applies(self._query):
                return False
        except Exception as error:  # noqa: BLE001 - a stage that cannot say whether it applies has failed
            self._take_in(step, error)
            return False
        if step.refines and self._settled_by:
            self._skipped[name] = f"{SETTLED_BY}{self._settled_by}"
            self._reasons[name] = Reason.SETTLED
            return False
        return True

    async def _tried(self, step: Step[Q], batch: Batch) -> Made | Exception:
        """What the stage gives, or its failure; raises that of a step that fails the request, and where the request itself ends."""
        try:
            return await self._made(step, batch)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error: Exception = DependencyUnavailable(f"What {step.stage.name} waited for was given up by another.")
        except Exception as raised:  # noqa: BLE001 - the step's policy says what becomes of it
            error = raised
        if step.on_failure is FAIL:
            raise error
        return error

    def _take_in(self, step: Step[Q], result: Made | Exception) -> None:
        """Put what a step made into the batch; where it failed, do what its policy says."""
        stage = step.stage
        if not isinstance(result, Exception):
            try:
                batch, removed = merged(stage, result, self._batch, self._source_names, self._removed)
                is_sure = isinstance(result, Scored) and self._is_settled(step, batch)
            except Exception as error:  # noqa: BLE001 - what breaks its kind's promise has failed
                result = error
            else:
                self._batch, self._removed = batch, removed
                if isinstance(result, Scored) and len(batch):
                    self._scored(step, result, is_sure=is_sure)
                return
        if step.on_failure is FAIL:
            raise result
        because = f"{type(result).__name__}: {result}"
        self._skipped[stage.name] = because
        self._reasons.setdefault(stage.name, _reason_of(result))
        self._degraded = self._degraded or step.on_failure is USE_PREVIOUS
        self._complain(stage.name, f"stage {stage.name} failed, {step.on_failure}: {because}")

    def _is_settled(self, step: Step[Q], batch: Batch) -> bool:
        return step.settles is not None and len(batch) > 0 and step.settles(self._query, batch)

    def _scored(self, step: Step[Q], scored: Scored, *, is_sure: bool) -> None:
        """After a scorer that worked: it has decided, maybe without all that it wanted to do, and may have settled the request."""
        name = step.stage.name
        self._scored_by = name
        if scored.lacking:
            self._skipped[name] = scored.lacking
            self._reasons[name] = Reason.PARTLY
            self._degraded = self._degraded or step.on_failure is USE_PREVIOUS
        if scored.lacking or scored.done.parts is not None:
            self._extents[name] = scored.done
        if is_sure:
            self._settled_by = name

    async def _made(self, step: Step[Q], batch: Batch) -> Made:
        """What the stage gives, within its budget. A native call in a thread runs on, but frees the request."""
        stage = step.stage
        scoring = Scoring(step, stage, self._query, batch) if isinstance(stage, Scorer) else None
        if step.budget_ms is None:
            planned = None
            if scoring is not None:
                planned = self._extents_given.get(stage.name, Extent(scoring.rows))
            return await self._run(step, batch, scoring, planned, self._deadline)
        slot = self._deadline.within_ms(step.budget_ms)
        left_ms = (slot.ends_s - slot.started_s) * 1000
        if left_ms <= 0:
            raise self._not_started(stage, f"{stage.name} could not start: the deadline passed {-left_ms:.1f} ms ago.")
        return await self._within(step, batch, scoring, slot, left_ms)

    async def _within(
        self, step: Step[Q], batch: Batch, scoring: Scoring[Q] | None, slot: Deadline, left_ms: float
    ) -> Made:
        """Start only what is predicted to end in time, and free the request when the time is used up."""
        stage, cost = step.stage, self._costs[step.stage.name]
        planned = scoring.planned(cost, left_ms) if scoring is not None else None
        if planned is not None:
            size = planned.rows
        else:
            size = scoring.least if scoring is not None else stage.size(self._query, batch)
            predicted_ms = cost.predict_ms(size)
            if (scoring is not None or predicted_ms > left_ms) and not cost.may_try():
                told = f"it has {left_ms:.1f} ms, and {size:,} rows take {predicted_ms:.1f} ms"
                raise self._not_started(stage, f"{stage.name} was not started: {told}.")
            planned = Extent(size)
        timeout = asyncio.timeout(left_ms / 1000)
        try:
            async with timeout:
                made = await self._run(step, batch, scoring, planned, slot)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            cost.note_overrun(size, left_ms)
            self._reasons[stage.name] = Reason.OVERRAN
            raise DeadlineExceeded(f"{stage.name} took longer than its {left_ms:.1f} ms.") from error
        lacking_ms = made.lacking_ms if isinstance(made, Scored) else 0.0
        cost.note(size, (self._clock() - slot.started_s) * 1000 + lacking_ms)
        return made  # also where its time ran out while the last reply came in: what is there is used, as the query knows it too

    async def _run(
        self, step: Step[Q], batch: Batch, scoring: Scoring[Q] | None, planned: Extent | None, slot: Deadline
    ) -> Made:
        stage, started_s = step.stage, self._clock()
        self._started_ms[stage.name] = (started_s - self._began_s) * 1000
        try:
            if scoring is not None and planned is not None:
                return await scoring.run(planned, slot)
            if isinstance(stage, SideEffect):
                await stage.act(self._query, self.outcome())
                return None
            return await made_by(stage, self._query, batch)
        finally:
            self._stage_ms[stage.name] = (self._clock() - started_s) * 1000

    def _not_started(self, stage: Stage[Q], because: str) -> DeadlineExceeded:
        self._reasons[stage.name] = Reason.NOT_STARTED
        return DeadlineExceeded(because)


def _reason_of(error: Exception) -> Reason:
    if isinstance(error, LaneBusy):
        return Reason.BUSY
    return Reason.OVERRAN if isinstance(error, DeadlineExceeded) else Reason.FAILED
