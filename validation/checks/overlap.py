"""overlap: users who are in the live snapshot find many of the same items at the top of their new lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe
import numpy as np

from validation.case import Case
from validation.check import MAX_EXAMPLES, Check, Figures, Requirement, Severity, Status, Whole
from validation.comparison import COMMON_USERS_FRACTION, Comparison
from validation.scan import TOP


@dataclass(frozen=True, kw_only=True)
class Overlap(Check):
    """Mean Jaccard of the first 100 items by item id (indexes differ between snapshots), over the users in common.

    Two lists of 100 that share s items have s / (200 - s): below 0.25 they share fewer than 40, which is worth a look;
    below 0.05 fewer than 10, which is another recommender. Where the two were built differently on purpose a low overlap only
    warns, as does a snapshot that holds fewer than half of the live users: those would get the popular list.
    """

    name = "overlap"
    title = "Lists like the live snapshot's"
    warn_below: float = 0.25
    fail_below: float = 0.05

    def skip(self, case: Case) -> tuple[Status, str] | None:
        return skip_without_live(case)

    def measure(self, case: Case) -> Figures:
        found = case.comparison
        if found is None:
            return {}
        mean = float(found.overlaps.mean()) if len(found.overlaps) else 0.0
        return {"overlap_mean": mean, "overlap_common_users": found.common_users_fraction}

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        found = case.comparison
        if found is None:
            return ()
        common = Whole(
            gxe.ExpectColumnValuesToBeBetween(column="overlap_common_users", min_value=COMMON_USERS_FRACTION),
            Severity.WARN,
            wanted=f"at least {COMMON_USERS_FRACTION:.0%} of the live users",
            seen=f"{figures['overlap_common_users']:.1%} of the users of {case.live}",
        )
        if not len(found.overlaps):
            return (common,)
        because = "" if found.alike_expected else f" ({'; '.join(found.differences)})"
        seen = (
            f"mean Jaccard of the first {TOP} {figures['overlap_mean']:.3f} with {case.live} over "
            f"{len(found.overlaps):,} users{because}"
        )
        examples = tuple(_least_alike(found))
        return (
            common,
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="overlap_mean", min_value=self.fail_below),
                self.severity if found.alike_expected else Severity.WARN,
                wanted=f"a mean Jaccard of at least {self.fail_below:g}",
                seen=seen,
                examples=examples,
            ),
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="overlap_mean", min_value=self.warn_below),
                Severity.WARN,
                wanted=f"a mean Jaccard of at least {self.warn_below:g}",
                seen=seen,
                examples=examples,
            ),
        )


def skip_without_live(case: Case) -> tuple[Status, str] | None:
    """For checks against the live snapshot: a live snapshot that cannot be read is worth a warning, none at all is not."""
    reason = case.no_comparison
    if not reason:
        return None
    return (Status.WARNED if case.comparison_problem else Status.SKIPPED), reason


def _least_alike(found: Comparison) -> list[str]:
    worst = np.argsort(found.overlaps, kind="stable")[:MAX_EXAMPLES]
    return [f"user {found.user_ids[row]!r}: {found.overlaps[row]:.3f}" for row in worst]
