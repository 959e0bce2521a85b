"""popular: there are lists for users whom the snapshot does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe
import numpy as np

from infra.snapshots.tables import POPULAR, read_popular
from validation.case import Case
from validation.check import Check, Figures, Requirement, Severity, Whole

WANTED = ("popular", "trending")


@dataclass(frozen=True, kw_only=True)
class PopularLists(Check):
    """What an unknown user is answered with, and what fills a list that filters have shortened.

    Without a popular list there is no answer for them; without a trending one (no event in the trend window) there still is.
    """

    name = "popular"
    title = "Popular and trending lists"

    def measure(self, case: Case) -> Figures:
        lists = read_popular(case.version.storage, sorted(case.manifest.parts[POPULAR].files))
        n_items = case.manifest.counts["items"]
        figures = {}
        for name in WANTED:
            items, scores = lists.get(name, (np.zeros(0, np.int32), np.zeros(0, np.float32)))
            sound = (items >= 0) & (items < n_items) & np.isfinite(scores)
            figures[f"popular_{name}_items"] = float(len(items))
            figures[f"popular_{name}_wrong"] = float(len(items) - len(np.unique(items[sound])))
        return figures

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        wanted = []
        for name in WANTED:
            n, wrong = int(figures[f"popular_{name}_items"]), int(figures[f"popular_{name}_wrong"])
            seen = f"{n:,} {name} items"
            if wrong:
                seen += f", {wrong:,} of them repeated, unknown or without a finite score"
            wanted += [
                Whole(
                    gxe.ExpectColumnValuesToBeBetween(column=f"popular_{name}_items", min_value=1),
                    self.severity if name == "popular" else Severity.WARN,
                    wanted=f"a {name} list",
                    seen=seen,
                ),
                Whole(
                    gxe.ExpectColumnValuesToBeBetween(column=f"popular_{name}_wrong", max_value=0),
                    self.severity,
                    wanted=f"each {name} item once, of the catalogue, with a finite score",
                    seen=seen,
                ),
            ]
        return wanted
