"""catalogue: every item that a list or a history names is in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, EachUser, Figures, Requirement, user_example


@dataclass(frozen=True, kw_only=True)
class Catalogue(Check):
    """An index beyond the item table would crash the request that reads it, or wrap to another item."""

    name = "catalogue"
    title = "Only items of the catalogue"

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        wanted = f"item indexes 0 to {case.manifest.counts['items'] - 1:,}"
        return (
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_outside_catalogue", max_value=0),
                self.severity,
                wanted=f"{wanted} in each list",
                fault="have candidates outside the catalogue",
                example=lambda row: user_example(row, f"{row['n_outside_catalogue']} unknown items"),
            ),
            EachUser(
                gxe.ExpectColumnValuesToBeBetween(column="n_history_outside", max_value=0),
                self.severity,
                wanted=f"{wanted} in each history",
                fault="have a history outside the catalogue",
                example=lambda row: user_example(row, f"{row['n_history_outside']} unknown items of history"),
            ),
        )
