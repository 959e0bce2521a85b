"""ranker_quality: offline, the ranker orders the candidates no worse than retrieval did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import Check, Figures, Requirement, Severity, Status, Whole

METRIC = "ndcg@10"


@dataclass(frozen=True, kw_only=True)
class RankerQuality(Check):
    """NDCG@10 on the held-out window, from the manifest. On data without time or content a ranker adds nothing, and noise may
    put it a little below retrieval: only a loss of more than `tolerated_loss` (of retrieval's figure) is worth a warning."""

    name = "ranker_quality"
    title = "The ranker is worth its time"
    severity: Severity = Severity.WARN
    tolerated_loss: float = 0.05

    def skip(self, case: Case) -> tuple[Status, str] | None:
        metrics = case.manifest.ranker.metrics
        if not metrics:
            return Status.SKIPPED, "no ranker was wanted: every list keeps the order of retrieval"
        missing = [name for name in ("ranker", "retrieval") if METRIC not in metrics.get(name, {})]
        if missing:
            return Status.WARNED, f"the manifest has no {METRIC} of {' or '.join(missing)}"
        return None

    def measure(self, case: Case) -> Figures:
        metrics = case.manifest.ranker.metrics
        ranker, retrieval = metrics["ranker"][METRIC], metrics["retrieval"][METRIC]
        return {"ranker_quality_loss": (retrieval - ranker) / retrieval if retrieval > 0 else 0.0}

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        metrics = case.manifest.ranker.metrics
        return (
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="ranker_quality_loss", max_value=self.tolerated_loss),
                self.severity,
                wanted=f"a ranker at most {self.tolerated_loss:.0%} worse than retrieval",
                seen=f"{METRIC} {metrics['ranker'][METRIC]:.4f} ranked, {metrics['retrieval'][METRIC]:.4f} as retrieved",
            ),
        )
