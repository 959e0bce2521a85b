"""score_distribution: the stored scores are spread like those of the live snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, Figures, Requirement, Severity, Status, Whole
from validation.checks.overlap import skip_without_live


@dataclass(frozen=True, kw_only=True)
class ScoreDistribution(Check):
    """Population stability index of all new scores over the live ones' deciles.

    For two normal distributions of equal spread, PSI is the squared shift in standard deviations. The field's rule of thumb
    for "moved" is 0.25, half a standard deviation: worth a look. 4 is two standard deviations: fewer than one score in
    three lies where the live ones do, which no day's events explain. Where the two were built differently on purpose
    (another embedder, other users) a shift is expected, and only warns.
    """

    name = "score_distribution"
    title = "Scores spread as in the live snapshot"
    warn_above: float = 0.25
    fail_above: float = 4.0

    def skip(self, case: Case) -> tuple[Status, str] | None:
        return skip_without_live(case)

    def measure(self, case: Case) -> Figures:
        return {"score_distribution_psi": case.comparison.score_psi} if case.comparison else {}

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        if case.comparison is None:
            return ()
        expected = case.comparison.alike_expected
        because = "" if expected else f" ({'; '.join(case.comparison.differences)})"
        seen = f"PSI {figures['score_distribution_psi']:.3f} against {case.live}{because}"
        return (
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="score_distribution_psi", max_value=self.fail_above),
                self.severity if expected else Severity.WARN,
                wanted=f"PSI at most {self.fail_above:g}",
                seen=seen,
            ),
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="score_distribution_psi", max_value=self.warn_above),
                Severity.WARN,
                wanted=f"PSI at most {self.warn_above:g}",
                seen=seen,
            ),
        )
