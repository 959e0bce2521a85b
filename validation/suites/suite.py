"""suite: the checks of one application, in the order in which they are reported."""

from __future__ import annotations

from dataclasses import dataclass

from validation.check import Check


@dataclass(frozen=True, slots=True)
class Suite:
    """first: made before all others, which are not made where it fails. then: independent of each other."""

    first: Check
    then: tuple[Check, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of them."""
        return (self.first, *self.then)
