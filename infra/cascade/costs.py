"""costs: what a stage takes, learnt from what it took: a straight line over its size, forgetting what is long ago."""

from __future__ import annotations

import math

_KEPT = 0.98
"""Of what was known at each new observation: a stage is as slow as in its last fifty runs."""

_SPREADS = 2.0
"""How many mean deviations a prediction lies above the line."""

_OVERRUN = 2.0
"""What a run that was left behind is taken to have needed, in times of what it was given: as long again, for nobody knows."""

_PATIENCE = 16
"""Refusals in a row after which a stage is tried all the same, at the most: who is never started cannot show that it has become
faster, and a try that fails costs its request the whole budget."""


class StageCost:
    """One stage's time in ms as a function of its size (rows), by weighted least squares.

    While only one size was seen, the line goes through the origin: half of the rows are taken to cost half.
    """

    def __init__(self) -> None:
        self._refused = 0
        self._on_trial = False
        self._forget()

    @property
    def is_known(self) -> bool:
        """Whether it ran at all."""
        return self._weight > 0

    def note(self, size: int, taken_ms: float) -> None:
        """It ended, and took so long. Where it was on trial, what was known of it is no longer so."""
        if self._on_trial:
            self._forget()
        self._take_in(size, taken_ms)

    def note_overrun(self, size: int, given_ms: float) -> None:
        """It was left behind when the time that it was given had passed."""
        known_ms = self._line(size) if self.is_known else 0.0
        self._take_in(size, max(known_ms, given_ms * _OVERRUN))

    def predict_ms(self, size: int) -> float:
        """What it will hardly exceed; 0 where nothing is known."""
        return self._line(size) + _SPREADS * self._deviation_ms

    def size_within(self, ms: float, *, most: int) -> int:
        """The largest size up to `most` that is predicted to fit; 0 where none is."""
        if self.predict_ms(most) <= ms:
            return most
        left_ms = ms - self.predict_ms(0)
        if left_ms <= 0 or self._slope <= 0:
            return 0
        return min(most, math.floor(left_ms / self._slope))

    def may_try(self) -> bool:
        """Whether it is started although it is predicted not to end in time; each call is one more refusal or a try.

        It is tried after as many refusals in a row as there are runs that it is judged by: after one slow run at once, for that may
        have been the machine's doing.
        """
        self._refused += 1
        if self._refused <= min(_PATIENCE, int(self._weight)):
            return False
        self._refused = 0
        self._on_trial = True
        return True

    def _forget(self) -> None:
        self._weight = self._size = self._taken = self._sizes = self._products = 0.0
        self._deviation_ms = self._base = self._slope = 0.0

    def _take_in(self, size: int, taken_ms: float) -> None:
        if self.is_known:
            off_ms = abs(taken_ms - self._line(size))
            self._deviation_ms += (off_ms - self._deviation_ms) / min(50.0, self._weight + 1)
        self._weight = self._weight * _KEPT + 1
        self._size = self._size * _KEPT + size
        self._taken = self._taken * _KEPT + taken_ms
        self._sizes = self._sizes * _KEPT + size * size
        self._products = self._products * _KEPT + size * taken_ms
        self._refused, self._on_trial = 0, False
        self._fit()

    def _line(self, size: int) -> float:
        return self._base + self._slope * size

    def _fit(self) -> None:
        """ms, and ms a row; neither below 0. Where sizes differ by less than a tenth, they are taken to be proportional."""
        size, taken = self._size / self._weight, self._taken / self._weight
        proportional = taken / size if size else 0.0
        pull = (0.1 * size) ** 2 + 1e-9
        spread = max(0.0, self._sizes / self._weight - size * size)
        together = self._products / self._weight - size * taken
        self._slope = min(max(0.0, (together + pull * proportional) / (spread + pull)), proportional)
        self._base = max(0.0, taken - self._slope * size)
