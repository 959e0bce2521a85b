"""score_order: each list falls in score, ties by item index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class ScoreOrder(Check):
    """Serving reads a list from the top and stops: what lies out of order is lost."""

    name = "score_order"
    title = "Lists in order"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_unordered", max_value=0),
                self.severity,
                wanted="scores that never rise, ties by rising item index",
                fault="have a list out of order",
                example=lambda row: user_example(
                    row, f"{row['n_unordered']} places where the next score is higher, or equal with a lower index"
                ),
            ),
        )
