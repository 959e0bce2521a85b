"""complaints: warnings about what fails again and again, at most one a second and kind, with how many were left out."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter

from infra.resilience.deadline import Clock

_EVERY_S = 1.0


class Complaints:
    """Warns in a log."""

    def __init__(self, log: logging.Logger, *, clock: Clock = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._last_s: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def note(self, kind: str, text: str) -> None:
        """Warn, unless one of that kind was told less than a second ago; then it is counted and the next line tells it."""
        now_s = self._clock()
        if now_s - self._last_s.get(kind, -math.inf) < _EVERY_S:
            self._untold[kind] += 1
            return
        self._last_s[kind] = now_s
        untold = self._untold.pop(kind, 0)
        self._log.warning("%s%s", text, f" (and {untold} more since the last line)" if untold else "")
