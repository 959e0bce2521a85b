"""witness: sees the batch as each step of one run leaves it, from between the steps; changes nothing of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.query import RankingQuery
from infra.cascade.batch import EMPTY, Batch, Column, Outcome
from infra.cascade.kinds import Hydrator, Selector, SideEffect
from infra.cascade.steps import FAIL, Step, Together

Steps = Sequence[Step[RankingQuery] | Together[RankingQuery]]


@dataclass(frozen=True, slots=True)
class Sight:
    """Steps that saw the same batch (mostly one), what they saw, and what they left."""

    steps: tuple[Step[RankingQuery], ...]
    before: Batch
    after: Batch


class Witness:
    """Of one run. sights: in the steps' order, once the run has ended."""

    def __init__(self) -> None:
        self.sights: list[Sight] = []

    def beside(self, steps: Steps) -> list[Step[RankingQuery] | Together[RankingQuery]]:
        """The steps, each followed by one that looks. Nobody looks after side effects, which change no batch."""
        seen: list[Step[RankingQuery] | Together[RankingQuery]] = []
        for step in steps:
            group = step.steps if isinstance(step, Together) else (step,)
            seen.append(step)
            stage = group[0].stage
            if not isinstance(stage, SideEffect):
                looking = _LookingSelector if isinstance(stage, Selector) else _LookingHydrator
                seen.append(Step(looking(group, self), on_failure=FAIL, budget_ms=None))
        return seen

    def left_by(self, name: str) -> Batch:
        """The batch after the stage of that name; EMPTY where no run came so far."""
        found = (sight.after for sight in self.sights if any(step.stage.name == name for step in sight.steps))
        return next(found, EMPTY)

    def look(self, steps: tuple[Step[RankingQuery], ...], batch: Batch) -> None:
        """Keep it; batches are never written to."""
        before = self.sights[-1].after if self.sights else EMPTY
        self.sights.append(Sight(steps, before, batch))


@dataclass(frozen=True, slots=True)
class Run:
    """One query's way through the steps, as it was seen."""

    query: RankingQuery
    outcome: Outcome
    sights: Sequence[Sight]
    source_names: tuple[str, ...]


_PREFIX = "after "


def without_looks(stage_ms: Mapping[str, float]) -> dict[str, float]:
    """What the stages took, without those that only looked."""
    return {name: taken for name, taken in stage_ms.items() if not name.startswith(_PREFIX)}


class _LookingHydrator(Hydrator[RankingQuery]):
    """Adds no column."""

    def __init__(self, steps: tuple[Step[RankingQuery], ...], witness: Witness) -> None:
        self.name = f"{_PREFIX}{steps[0].stage.name}"
        self._steps = steps
        self._witness = witness

    async def hydrate(self, query: RankingQuery, batch: Batch) -> Mapping[str, Column]:
        """Nothing new."""
        self._witness.look(self._steps, batch)
        return {}


class _LookingSelector(Selector[RankingQuery]):
    """Leaves all where they are."""

    def __init__(self, steps: tuple[Step[RankingQuery], ...], witness: Witness) -> None:
        self.name = f"{_PREFIX}{steps[0].stage.name}"
        self._steps = steps
        self._witness = witness

    async def select(self, query: RankingQuery, batch: Batch) -> NDArray[np.integer]:
        """Every row, in order."""
        self._witness.look(self._steps, batch)
        return np.arange(len(batch))
