"""finite_scores: every stored score, and every feature that is not simply unknown, is a finite number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class FiniteScores(Check):
    """NaN is counted into a column of its own: a NaN passes every comparison of values."""

    name = "finite_scores"
    title = "Finite scores, NaN counted"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_nan", max_value=0),
                self.severity,
                wanted="a number for each score",
                fault="have a NaN score",
                example=lambda row: user_example(row, f"{row['n_nan']} NaN"),
            ),
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_infinite", max_value=0),
                self.severity,
                wanted="a finite number for each score",
                fault="have an infinite score",
                example=lambda row: user_example(row, f"{row['n_infinite']} infinite"),
            ),
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_infinite_features", max_value=0),
                self.severity,
                wanted="finite or unknown (NaN) features of each user",
                fault="have an infinite feature",
                example=lambda row: user_example(row, f"{row['n_infinite_features']} infinite features"),
            ),
        )
