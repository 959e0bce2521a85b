"""deadline: how much of a request's time is left, on a monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

Clock = Callable[[], float]
"""Seconds on a clock that never goes back."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a monotonic clock. Made once a request and handed down; nobody below makes another."""

    started_s: float
    ends_s: float
    clock: Clock

    @classmethod
    def after_ms(cls, budget_ms: float, *, clock: Clock = time.monotonic) -> Self:
        """The deadline that is `budget_ms` from now."""
        now = clock()
        return cls(now, now + budget_ms / 1000, clock)

    def within_ms(self, budget_ms: float) -> Deadline:
        """What a stage may use of it: at most `budget_ms` from now, and never beyond the end."""
        now = self.clock()
        return Deadline(now, min(self.ends_s, now + budget_ms / 1000), self.clock)

    def remaining_ms(self) -> float:
        """What is left; negative once it has passed."""
        return (self.ends_s - self.clock()) * 1000

    def elapsed_ms(self) -> float:
        """What was used since the request began."""
        return (self.clock() - self.started_s) * 1000
