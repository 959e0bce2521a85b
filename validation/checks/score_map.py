"""score_map: for a sample of users, each stored score is the declared map of its inner product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe

from validation.case import Case
from validation.check import MAX_EXAMPLES, Check, Figures, Requirement, Whole


@dataclass(frozen=True, kw_only=True)
class ScoreMapHolds(Check):
    """stored = softplus(inner product / scale), the scale being the manifest's: else scores and vectors are of two builds,
    and the ranker sees a feature that it was not trained on."""

    name = "score_map"
    title = "Scores are the map of the inner products"

    def measure(self, case: Case) -> Figures:
        wrong = case.exact["n_wrong_scores"]
        return {"score_map_users_wrong": float((wrong > 0).sum()), "score_map_scores_wrong": float(wrong.sum())}

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        rows = case.exact[case.exact["n_wrong_scores"] > 0][:MAX_EXAMPLES]
        n_wrong, n = int(figures["score_map_users_wrong"]), len(case.exact)
        return (
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="score_map_users_wrong", max_value=0),
                self.severity,
                wanted=f"softplus(inner product / {case.manifest.score_scale:.4g}) for each score",
                seen=f"{int(figures['score_map_scores_wrong']):,} other scores in the lists of {n_wrong:,} of {n:,} sampled users"
                if n_wrong
                else f"all scores of {n:,} sampled users",
                examples=tuple(
                    f"user {user_id!r} (index {index}): {wrong} scores"
                    for user_id, index, wrong in rows[["user_id", "user_index", "n_wrong_scores"]].itertuples(
                        index=False
                    )
                ),
            ),
        )
