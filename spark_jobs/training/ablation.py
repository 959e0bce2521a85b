"""ablation: what the trees lose without the features of batch, stream or request."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from infra.catalog.features.ranking import FEATURE_GROUPS, RANKER_FEATURES
from spark_jobs.training.evaluation import Floats, order_of
from spark_jobs.training.examples import Examples
from spark_jobs.training.ranker import learn
from spark_jobs.training.worth import Gain, paired

TREES, TEACHING_USERS = 20, 1500
"""Of each ranker that is learnt for it, at most: what a group is worth shows early, and four rankers take some 4 s so."""


@dataclass(frozen=True, slots=True)
class Without:
    """Trees that were taught without a group. ndcg10: on the held-out window; loss: of those taught with all, less theirs."""

    group: str
    features: int
    ndcg10: float
    loss: Gain


def ablation(teaching: Examples, judging: Examples, *, seed: int, trees: int = TREES) -> tuple[Without, ...]:
    """Each group of FEATURE_GROUPS in turn taken for unknown, in learning and in judging. Nothing where nothing can be learnt."""
    teaching = teaching.where(np.arange(len(teaching)) < TEACHING_USERS)
    whole = _ndcg(teaching, judging, without=(), trees=trees, seed=seed)
    if whole is None or not len(judging):
        return ()
    told = []
    for group, names in FEATURE_GROUPS.items():
        ndcg = _ndcg(teaching, judging, without=names, trees=trees, seed=seed)
        if ndcg is not None:
            told.append(Without(group, len(names), float(ndcg.mean()), paired(whole - ndcg, seed=seed)))
    return tuple(told)


def _ndcg(teaching: Examples, judging: Examples, *, without: tuple[str, ...], trees: int, seed: int) -> Floats | None:
    columns = [RANKER_FEATURES.index(name) for name in without]
    ranker = learn(_blind(teaching, columns), trees=trees, seed=seed, longest=1)
    if not ranker.learnt:
        return None
    scores = ranker.booster().inplace_predict(_blind(judging, columns).matrix, validate_features=False)
    return order_of(judging, np.asarray(scores, np.float32)).ndcg


def _blind(examples: Examples, columns: list[int]) -> Examples:
    matrix = examples.matrix.copy()
    matrix[:, columns] = np.nan
    return replace(examples, matrix=matrix)
