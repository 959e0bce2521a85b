"""recall: for a sample of users, the lists hold the items that exact search finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import MAX_EXAMPLES, Check, Figures, Requirement, Severity, Whole


@dataclass(frozen=True, kw_only=True)
class Recall(Check):
    """Mean recall@K against brute-force inner products of the snapshot's own vectors, ties counted as found.

    0.95 is what an approximate index must keep to be allowed at all. Retrieval is exact up to about a million items and
    then finds everything, so anything below 0.99 says that lists and vectors are not of one build.
    """

    name = "recall"
    title = "What exact search would find"
    fail_below: float = 0.95
    warn_below: float = 0.99

    def measure(self, case: Case) -> Figures:
        rows = case.exact
        judged = rows["recall"].dropna()
        return {
            "recall_mean": float(judged.mean()) if len(judged) else 1.0,
            "recall_users": float(len(judged)),
            "recall_without_vector": float((~rows["has_vector"].astype(bool)).sum()),
        }

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        rows = case.exact
        worst = rows[rows["recall"] < self.warn_below].sort_values(["recall", "user_index"])[:MAX_EXAMPLES]
        examples = tuple(
            f"user {user_id!r} (index {index}): {recall:.3f}"
            for user_id, index, recall in worst[["user_id", "user_index", "recall"]].itertuples(index=False)
        )
        lost = rows[~rows["has_vector"].astype(bool)]
        seen = (
            f"recall@{case.manifest.candidates_per_user} {figures['recall_mean']:.4f} over "
            f"{int(figures['recall_users']):,} sampled users"
        )
        return (
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="recall_without_vector", max_value=0),
                self.severity,
                wanted="a vector for each sampled user",
                seen=f"{len(lost):,} of {len(rows):,} sampled users have no vector"
                if len(lost)
                else f"a vector for each of {len(rows):,} sampled users",
                examples=tuple(f"user {user_id!r}" for user_id in lost["user_id"][:MAX_EXAMPLES]),
            ),
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="recall_mean", min_value=self.fail_below),
                self.severity,
                wanted=f"recall at least {self.fail_below:g}",
                seen=seen,
                examples=examples,
            ),
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="recall_mean", min_value=self.warn_below),
                Severity.WARN,
                wanted=f"recall at least {self.warn_below:g}",
                seen=seen,
                examples=examples,
            ),
        )
