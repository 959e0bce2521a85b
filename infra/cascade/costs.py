"""costs: what a stage takes, learnt from what it took: a straight line over its size, forgetting what is long ago."""

from __future__ import annotations

import math

_KEPT = 0.98
"""Of what was known at each new observation: a stage is as slow as in its last fifty runs."""

_SPREADS = 2.0
"""How many mean deviations a prediction lies above the line."""

_TRUST = 0.98
"""What a prediction keeps each time it stopped a stage: who is never started cannot show that it has become faster."""


class StageCost:
    """One stage's time in ms as a function of its size (rows), by weighted least squares.

    While only one size was seen, the line goes through the origin: half of the rows are taken to cost half.
    """

    def __init__(self) -> None:
        self._weight = self._size = self._taken = self._sizes = self._products = 0.0
        self._deviation_ms = 0.0
        self._trust = 1.0

    @property
    def is_known(self) -> bool:
        """Whether it ran at all."""
        return self._weight > 0

    def note(self, size: int, taken_ms: float) -> None:
        """It took so long; of one that was left behind, the time it was given, which is less than it would have taken."""
        if self.is_known:
            off_ms = abs(taken_ms - self._line(size))
            self._deviation_ms += (off_ms - self._deviation_ms) / min(50.0, self._weight + 1)
        self._weight = self._weight * _KEPT + 1
        self._size = self._size * _KEPT + size
        self._taken = self._taken * _KEPT + taken_ms
        self._sizes = self._sizes * _KEPT + size * size
        self._products = self._products * _KEPT + size * taken_ms
        self._trust = 1.0

    def predict_ms(self, size: int) -> float:
        """What it will hardly exceed; 0 where nothing is known."""
        if not self.is_known:
            return 0.0
        return self._trust * (self._line(size) + _SPREADS * self._deviation_ms)

    def size_within(self, ms: float, *, most: int) -> int:
        """The largest size up to `most` that is predicted to fit; 0 where none is."""
        if self.predict_ms(most) <= ms:
            return most
        base, slope = self._coefficients()
        left_ms = ms / self._trust - _SPREADS * self._deviation_ms - base
        if left_ms <= 0 or slope <= 0:
            return 0
        return min(most, math.floor(left_ms / slope))

    def forgive(self) -> None:
        """A prediction stopped it: the next ones are a little lower, until it runs again."""
        self._trust *= _TRUST

    def _line(self, size: int) -> float:
        base, slope = self._coefficients()
        return base + slope * size

    def _coefficients(self) -> tuple[float, float]:
        """ms, and ms a row; neither below 0. Where sizes differ by less than a tenth, they are taken to be proportional."""
        size, taken = self._size / self._weight, self._taken / self._weight
        proportional = taken / size if size else 0.0
        pull = (0.1 * size) ** 2 + 1e-9
        spread = max(0.0, self._sizes / self._weight - size * size)
        together = self._products / self._weight - size * taken
        slope = min(max(0.0, (together + pull * proportional) / (spread + pull)), proportional)
        return taken - slope * size, slope
