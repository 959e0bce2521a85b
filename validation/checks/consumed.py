"""consumed: each record knows all that its user has consumed, so that a list that is filled up brings nothing back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class Consumed(Check):
    """Compared with the dataset's events, item by item; a snapshot that includes consumed items must name none."""

    name = "consumed"
    title = "All that was consumed is known"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_consumed_wrong", max_value=0),
                self.severity,
                wanted="the items that the dataset's events say were consumed, each once",
                fault="have other consumed items than their events say",
                example=lambda row: user_example(row, f"{row['n_consumed_wrong']} items missing, too many or twice"),
            ),
        )
