"""batch: a request's candidates as aligned columns, what was removed from them and why, and what came out in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.decisions import Extent

Sources = NDArray[np.uint8]
Column = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Batch:
    """Candidates of one request; every column has the same first axis and the same order.

    ids: int32 [n], each once. scores: float32 [n], higher is better. sources: uint8 [n], the number of the source that
    brought the candidate, in the order of the cascade's sources. columns: what hydrators added, each [n, ...].
    """

    ids: Int32s
    scores: Float32s
    sources: Sources
    columns: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Batch:
        """Those rows (a mask, or positions in the wanted order) of every column."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Batch(self.ids[rows], self.scores[rows], self.sources[rows], columns)


EMPTY = Batch(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.uint8))


@dataclass(frozen=True, slots=True)
class Removed:
    """Candidates that a filter took out. ids: int32 [m]."""

    ids: Int32s
    by: str
    because: str


class Reason(StrEnum):
    """Why a stage did not run, did not count or did not finish; `Outcome.skipped` says it in words."""

    NOT_STARTED = "not_started"
    """It was predicted not to end in time, or no time was left."""
    OVERRAN = "overran"
    """It was left behind when its time was used up."""
    BUSY = "busy"
    """The native thread was taken by a call that had been given up."""
    FAILED = "failed"
    """It raised, or broke what its kind promises."""
    PARTLY = "partly"
    """It counts, and did less than all: see extents."""
    SETTLED = "settled"
    """An earlier scorer was sure enough to leave it out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cascade made of one query.

    decided_by: the last scorer that worked, else the source of the first candidate shown, else "nothing". settled_by: the scorer
    that was sure enough to leave out what would have refined it; empty where none was. stage_ms: wall-clock of each stage that
    ran. started_ms: when, since the first began. skipped: stage -> why it did not run, did not count or did not finish, and
    reasons: the same without words. extents: of the scorers that did not do all.
    """

    batch: Batch
    decided_by: str
    settled_by: str
    degraded: bool
    stage_ms: dict[str, float]
    started_ms: dict[str, float]
    skipped: dict[str, str]
    reasons: dict[str, Reason]
    extents: dict[str, Extent]
    removed: list[Removed]
