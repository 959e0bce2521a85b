"""coverage: every user of the dataset has exactly one list, under her own name, and nobody else has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, Row, user_example


@dataclass(frozen=True, kw_only=True)
class Coverage(Check):
    """The expected users are counted from the imported events, never from a list that a build job made.

    A user id that two users share would overwrite one record with the other in Redis, and a swapped one shows a user
    somebody else's recommendations.
    """

    name = "coverage"
    title = "Every user of the dataset exactly once"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        n = len(case.consumption.users)
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeInSet(column="n_lists", value_set=[1]),
                self.severity,
                wanted=f"one list for each of the {n:,} users with events",
                fault="have no list or more than one",
                example=_how_many,
            ),
            EachUser(
                gxe.ExpectColumnValuesToBeInSet(column="expected", value_set=[True]),
                self.severity,
                wanted="lists only for users with events in the dataset",
                fault="have a list and no event",
                example=lambda row: user_example(row, "not in the dataset's events"),
            ),
            EachUser(
                gxe.ExpectColumnValuesToBeInSet(column="id_is_right", value_set=[True]),
                self.severity,
                wanted="each list under its user's own id",
                fault="have their list under an id that is not theirs alone",
                example=lambda row: user_example(row, "not the dataset's id of that index, or used twice"),
            ),
        )


def _how_many(row: Row) -> str:
    return user_example(row, "no list" if row["n_lists"] == 0 else f"{row['n_lists']} lists")
