"""score_range: no stored score is negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class ScoreRange(Check):
    """The stored score is a declared non-negative map of the inner product: a negative one was not made by it."""

    name = "score_range"
    title = "No negative score"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_negative", max_value=0),
                self.severity,
                wanted="scores of 0 or more (softplus of the inner product)",
                fault="have a negative score",
                example=lambda row: user_example(row, f"{row['n_negative']} negative"),
            ),
        )
