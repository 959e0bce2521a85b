"""kinds: the six kinds of stages; a stage is a class with one public method, generic in the query it serves.

What each kind returns keeps it honest: a filter can only name rows to remove, a scorer can only give one number a row, a
hydrator can only add columns. The runner checks lengths and types; what breaks its kind's promise has failed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from infra.cascade.batch import Batch, Column, Outcome
from infra.contracts.candidates import Float32s, Int32s
from infra.resilience.deadline import Deadline

Q = TypeVar("Q")
"""The query: what a request asks and what is known about it so far."""


class Stage(ABC, Generic[Q]):
    """What all kinds share."""

    name: str
    """Unique in a cascade; the key in stage_ms, decided_by and removals."""

    def applies(self, query: Q) -> bool:
        """False where the stage has nothing to do for this query: it is neither run nor counted as skipped."""
        return True

    def size(self, query: Q, batch: Batch) -> int:
        """What its time grows with; the rows of the batch unless the stage says otherwise."""
        return len(batch)


@dataclass(frozen=True, slots=True)
class Found:
    """What a source brought, best first. ids: int32 [n], each once; scores: float32 [n]; columns: each [n, ...]."""

    ids: Int32s
    scores: Float32s
    columns: Mapping[str, Column] | None = None


class Source(Stage[Q]):
    """Brings candidates. Of candidates brought twice the earlier source's stay."""

    def size(self, query: Q, batch: Batch) -> int:
        """The same for all, unless the source says otherwise."""
        return 1

    @abstractmethod
    async def find(self, query: Q, batch: Batch) -> Found:
        """Candidates for the query; `batch` holds what earlier sources brought."""


class Hydrator(Stage[Q]):
    """Adds columns; keeps length and order."""

    @abstractmethod
    async def hydrate(self, query: Q, batch: Batch) -> Mapping[str, Column]:
        """New columns, each with len(batch) rows, aligned with batch.ids."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows to take out, and why. rows: bool [n], True where the candidate goes."""

    rows: NDArray[np.bool_]
    because: str


class Filter(Stage[Q]):
    """Removes candidates; never scores."""

    @abstractmethod
    async def remove(self, query: Q, batch: Batch) -> list[Removal]:
        """Which rows go; where reasons overlap the first counts."""


class Scorer(Stage[Q]):
    """Scores candidates; never drops. The last one that worked has decided."""

    @abstractmethod
    async def score(self, query: Q, batch: Batch) -> Float32s:
        """float32 [n], finite, aligned with batch.ids."""

    async def score_by(self, query: Q, batch: Batch, deadline: Deadline) -> Float32s:
        """The same, for a caller who waits until then: for those who share their native calls between requests."""
        return await self.score(query, batch)


@dataclass(frozen=True, slots=True)
class Partial:
    """What a scorer had when it stopped. scores: float32 [n], the sum of the first `done` parts; work_ms: what these took,
    without what was waited for before them."""

    scores: Float32s
    done: int
    work_ms: float = 0.0


class Worked(Protocol):
    """What a scorer knows of its own work, without the waiting for a thread that others use too; see StageCost."""

    @property
    def is_known(self) -> bool: ...

    def predict_ms(self, size: int) -> float: ...

    def size_within(self, ms: float, *, most: int) -> int: ...


class AnytimeScorer(Scorer[Q]):
    """A scorer whose model is a sum of parts (trees), so that the first of them are a score as well."""

    work: Worked | None = None
    """Where it knows this itself: parts are for work that does not fit, and save nobody from a queue."""

    @abstractmethod
    def parts(self, query: Q) -> int:
        """How many there are, at least 1."""

    @abstractmethod
    async def score_parts(self, query: Q, batch: Batch, deadline: Deadline, *, most: int) -> Partial:
        """The first parts: as many as the deadline leaves time for, at most `most`; what it gives depends on their number alone."""


class Selector(Stage[Q]):
    """Chooses what is shown, and in which order."""

    @abstractmethod
    async def select(self, query: Q, batch: Batch) -> NDArray[np.integer]:
        """Positions in the batch, each at most once, in the order to show."""


class SideEffect(Stage[Q]):
    """Acts on the finished outcome (counts, logs) and changes nothing of it."""

    @abstractmethod
    async def act(self, query: Q, outcome: Outcome) -> None:
        """Called once a request, after selection."""
