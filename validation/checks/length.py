"""length: each list is as long as it can be: K items, or all that its user may be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe
from great_expectations.expectations.row_conditions import Column

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class Length(Check):
    """wanted_length = min(K, catalogue - what the user consumed). Users without a list are coverage's business."""

    name = "length"
    title = "Lists of full length"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        k = case.manifest.candidates_per_user
        return (
            EachUser(
                gxe.ExpectColumnPairValuesToBeEqual(
                    column_A="length", column_B="wanted_length", row_condition=Column("n_lists") > 0
                ),
                self.severity,
                wanted=f"min({k:,}, items that the user may be shown) in each list",
                fault="have a list of another length",
                example=lambda row: user_example(row, f"{row['length']} items, wanted {row['wanted_length']}"),
            ),
        )
