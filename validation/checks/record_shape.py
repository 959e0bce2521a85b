"""record_shape: the packed values of each user's record have lengths that can be unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from infra.contracts.candidates import MAX_HISTORY
from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class RecordShape(Check):
    """A record cut short cannot be loaded, or would be read as other items."""

    name = "record_shape"
    title = "Records that can be unpacked"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        n_features = len(case.manifest.user_feature_order)
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_torn", max_value=0),
                self.severity,
                wanted=f"whole ids of 4 bytes, as many scores of 2, {n_features} features, at most {MAX_HISTORY} of history",
                fault="have a record that is cut short or does not fit together",
                example=lambda row: user_example(row, f"{row['n_torn']} of 5 packed values have an impossible length"),
            ),
        )
