"""decision_numbers: how many answers their log dropped before they were archived: they are numbered as they come, and some lack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

_LAST, _DROPPED = b"last_number", b"dropped"


@dataclass(frozen=True, slots=True)
class Tally:
    """What a file's footer says. last: the number of its last answer, None where that is not known; dropped: since the archive
    began, how many answers before it were in no file, because their log kept too few."""

    last: int | None
    dropped: int

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes]) -> Self:
        """Of a file of before there were numbers: not known, none."""
        last = metadata.get(_LAST)
        return cls(int(last) if last else None, int(metadata.get(_DROPPED, b"0")))

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """For the footer."""
        return {_LAST: b"" if self.last is None else b"%d" % self.last, _DROPPED: b"%d" % self.dropped}

    def after(self, numbers: Iterable[int]) -> Tally:
        """Once those answers are archived as well, in their order. 0: one that has no number.

        A number that is not above the last is of a log that lost its memory: it counts from 1 again, and what it held is not
        known.
        """
        found: Tally = self
        for number in numbers:
            found = found._and(number)
        return found

    def _and(self, number: int) -> Tally:
        if number == 0:
            return replace(self, last=None if self.last is None else self.last + 1)
        before = number - 1 if self.last is None else self.last if number > self.last else 0
        return Tally(number, self.dropped + number - 1 - before)


NOTHING = Tally(0, 0)
"""Of an archive without files."""
