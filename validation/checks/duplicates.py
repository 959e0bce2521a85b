"""duplicates: no list holds an item twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class Duplicates(Check):
    """A repeated item takes another's place, and the page shows it twice."""

    name = "duplicates"
    title = "No item twice in a list"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_duplicates", max_value=0),
                self.severity,
                wanted="distinct items in each list",
                fault="have an item more than once",
                example=lambda row: user_example(row, f"{row['n_duplicates']} repeated"),
            ),
        )
