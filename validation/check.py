"""check: what a check is: what it measures, what it wants, and how it words what it found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from great_expectations.expectations import Expectation as GxExpectation

from validation.case import Case

Row = Mapping[str, object]
"""One row of the users' summary, by column."""

Figures = Mapping[str, float]
"""What a check measured of the snapshot as a whole; its columns of the one-row table of figures."""

MAX_EXAMPLES = 5


class Severity(StrEnum):
    """What becomes of a snapshot that a check finds fault with: refused, or passed with a warning."""

    FAIL = "fail"
    WARN = "warn"


class Status(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class EachUser:
    """Wanted of every row of the summary. fault completes "3 of 20,000 users ..."; example says what is wrong with one."""

    expectation: GxExpectation
    severity: Severity
    wanted: str
    fault: str
    example: Callable[[Row], str]


@dataclass(frozen=True, slots=True)
class Whole:
    """Wanted of the snapshot's figures. seen says what was measured, whether or not it is as wanted."""

    expectation: GxExpectation
    severity: Severity
    wanted: str
    seen: str
    examples: tuple[str, ...] = ()


Requirement = EachUser | Whole


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check ended. examples: at most MAX_EXAMPLES users or files with what is wrong with each."""

    check: str
    title: str
    severity: Severity
    status: Status
    wanted: str
    seen: str
    examples: tuple[str, ...] = ()

    def line(self) -> str:
        """One line for a terminal or an error."""
        example = f", e.g. {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.check}: seen {self.seen}{example}; wanted {self.wanted}"


@dataclass(frozen=True, kw_only=True)
class Check(ABC):
    """One question to a snapshot. Great Expectations decides it; the check says what to expect and finds the words.

    severity: of its main requirement; a check may have gentler ones beside it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    severity: Severity = Severity.FAIL

    def skip(self, case: Case) -> tuple[Status, str] | None:
        """How the check ends without having been made, and why; None where it can be made."""
        return None

    def measure(self, case: Case) -> Figures:
        """Figures of the snapshot as a whole, named with the check's name in front; none for a check of the users' rows."""
        return {}

    @abstractmethod
    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        """What is wanted, given what was measured."""


def user_example(row: Row, what: str) -> str:
    """An example by the user's id, or by index where the dataset has no name for her."""
    name = repr(row["user_id"]) if row["user_id"] else "of no known id"
    return f"user {name} (index {row['user_index']}): {what}"
