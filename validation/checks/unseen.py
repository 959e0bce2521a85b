"""unseen: no list holds what its user has consumed, unless the snapshot says it may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, Status, user_example


@dataclass(frozen=True, kw_only=True)
class Unseen(Check):
    """What a user has consumed is read from the dataset's events, not from the record's own history."""

    name = "unseen"
    title = "Nothing already consumed"

    def skip(self, case: Case) -> tuple[Status, str] | None:
        if case.manifest.include_seen:
            return Status.SKIPPED, "the snapshot says that consumed items are included"
        return None

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_seen", max_value=0),
                self.severity,
                wanted="no item that the user has consumed",
                fault="are shown what they have consumed",
                example=lambda row: user_example(row, f"{row['n_seen']} items consumed before"),
            ),
        )
