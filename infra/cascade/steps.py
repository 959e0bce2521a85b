"""steps: how stages are wired: each with a budget, what its failure does, and when it may be left out or end the scoring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic

from infra.cascade.batch import Batch
from infra.cascade.kinds import Hydrator, Q, Scorer, Source, Stage
from infra.contracts.errors import ContractViolation


class OnFailure(StrEnum):
    """What a step's failure (an error, a broken promise, or its budget used up) does to the request."""

    USE_PREVIOUS = "USE_PREVIOUS"
    """The batch goes on as it was before the step; the answer is degraded."""
    SKIP = "SKIP"
    """The same, for steps that the answer does not lean on: not degraded."""
    FAIL = "FAIL"
    """The request fails."""


SETTLED_BY = "settled by "
"""How the reason begins why a step that refines was left out."""

USE_PREVIOUS, SKIP, FAIL = OnFailure.USE_PREVIOUS, OnFailure.SKIP, OnFailure.FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Of a batch a scorer takes the best rows by the scores before it; the others keep their order behind them.

    most: rows. least: where less time is left than these need, a scorer in parts does fewer parts of them, another does not start.
    """

    most: int
    least: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ContractViolation(f"A head of {self.least} to {self.most} rows cannot be; wanted 1 <= least <= most.")


@dataclass(frozen=True, slots=True)
class Step(Generic[Q]):
    """A stage as it is wired.

    budget_ms: the most it may take, or None for what must run whatever the clock says. refines: left out once an earlier scorer
    was sure. settles: of a scorer, whether its scores are sure enough to do without what would refine them. head: of a scorer,
    which rows it sees; None: all of them or none.
    """

    stage: Stage[Q]
    on_failure: OnFailure
    budget_ms: float | None
    refines: bool = False
    settles: Callable[[Q, Batch], bool] | None = None
    head: Head | None = None

    def __post_init__(self) -> None:
        """Raises ContractViolation."""
        if (self.settles or self.head) and not isinstance(self.stage, Scorer):
            raise ContractViolation(f"Only a scorer has a head or settles; {self.stage.name} is none.")


class Together(Generic[Q]):
    """Steps that wait for the network or the native thread at the same time. All see the batch as it was before the first of
    them; what they bring is put together in their order."""

    def __init__(self, *steps: Step[Q]) -> None:
        """Raises ContractViolation where they are not all sources, or all hydrators."""
        kinds = (Source, Hydrator)
        if not any(all(isinstance(step.stage, kind) for step in steps) for kind in kinds):
            names = [step.stage.name for step in steps]
            raise ContractViolation(f"Only sources, or hydrators, run together; seen {names}.")
        self.steps = steps
