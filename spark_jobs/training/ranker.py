"""ranker: the trees that order candidates: learnt from examples, or, where nothing can be learnt, the list's own order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import xgboost
from numpy.typing import NDArray

from infra.catalog.features.ranking import RANKER_FEATURES, definition_hash
from spark_jobs.training.examples import Examples

OBJECTIVE = "rank:ndcg"
IN_ORDER = "reg:squarederror"
"""The objective of a ranker that keeps the order of retrieval."""

BASE_SCORE = 0.0
"""Slices of trees then add up to the whole score, and a ranker without a reason to move an item leaves it at 0."""

ENOUGH_USERS = 20
"""With fewer users to learn from the trees would learn those users by heart."""

SHAPE: dict[str, str | float] = {
    "tree_method": "hist",
    "max_depth": 5,
    "eta": 0.1,
    "min_child_weight": 5,
    "lambda": 5,
    "lambdarank_pair_method": "topk",  # pairs that move the head of the list, which is what is shown
    "lambdarank_num_pair_per_sample": 10,
    "nthread": 1,  # seconds at this size, beside Spark's own work; and the same bytes on any machine
}

_RANK = RANKER_FEATURES.index("retrieval_rank_log")


@dataclass(frozen=True, slots=True)
class Ranker:
    """The model as it is stored. users, rows: what it learnt from, none where it keeps the order of retrieval."""

    content: bytes
    objective: str
    trees: int
    users: int
    rows: int

    @property
    def learnt(self) -> bool:
        """False where it keeps the order of retrieval."""
        return self.users > 0

    @property
    def signature(self) -> str:
        """What the bytes are and what they expect, in one line."""
        digest = hashlib.sha256(self.content).hexdigest()
        return (
            f"ubj sha256={digest} features={definition_hash()} objective={self.objective} "
            f"base_score={BASE_SCORE:g} trees={self.trees}"
        )

    def booster(self) -> xgboost.Booster:
        """The model, ready to score on all cores."""
        booster = xgboost.Booster()
        booster.load_model(bytearray(self.content))
        booster.set_param({"nthread": 0})
        return booster


def learn(examples: Examples, *, trees: int, seed: int, longest: int) -> Ranker:
    """LambdaMART on the users that took at least one of their candidates, one query group a user.

    Fewer than ENOUGH_USERS of them: a ranker that keeps lists of up to `longest` in order.
    """
    teaching = examples.where(examples.found())
    if len(teaching) < ENOUGH_USERS:
        return keep_order(trees=trees, longest=longest)
    data = xgboost.QuantileDMatrix(
        teaching.matrix, label=teaching.grades, qid=teaching.owners, feature_names=list(RANKER_FEATURES)
    )
    params = {**SHAPE, "objective": OBJECTIVE, "base_score": BASE_SCORE, "seed": seed}
    booster = xgboost.train(params, data, trees)
    return Ranker(bytes(booster.save_raw("ubj")), OBJECTIVE, trees, len(teaching), len(teaching.grades))


def keep_order(*, trees: int, longest: int) -> Ranker:
    """Trees that split on nothing but the place in the list: the first tells every place apart, the others change nothing.

    Beyond some thousands of places neighbours may share a score, which leaves their order to the list, as a sort is stable.
    So a snapshot whose data teaches nothing (a handful of users, one event each) is served, in the order of retrieval, by the
    same code as any other, and says that it learnt nothing.
    """
    places = np.arange(longest)
    matrix = np.full((longest, len(RANKER_FEATURES)), np.nan, np.float32)
    matrix[:, _RANK] = np.log1p(places)
    labels = ((longest - 1) / 2 - places).astype(np.float32)  # around 0, where float32 sums stay exact longest
    data = xgboost.DMatrix(matrix, label=labels, feature_names=list(RANKER_FEATURES))
    depth = int(np.ceil(np.log2(max(2, longest)))) + 1
    params = {
        "tree_method": "exact",
        "max_depth": depth,
        "eta": 1.0,
        "gamma": 0.1,  # a split between neighbours gains 0.5; what is left after that is rounding
        "lambda": 0,
        "min_child_weight": 0,
        "nthread": 1,
        "objective": IN_ORDER,
        "base_score": BASE_SCORE,
    }
    booster = xgboost.train(params, data, trees)
    return Ranker(bytes(booster.save_raw("ubj")), IN_ORDER, trees, 0, 0)


def gains(booster: xgboost.Booster) -> dict[str, float]:
    """Each feature's share of what all splits gained, 0..1, largest first; features that no tree uses have 0."""
    total = booster.get_score(importance_type="total_gain")
    whole = sum(_number(value) for value in total.values()) or 1.0
    shares = {name: _number(total.get(name, 0.0)) / whole for name in RANKER_FEATURES}
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def _number(value: float | list[float]) -> float:
    return float(value[0]) if isinstance(value, list) else float(value)


def scores_by_trees(
    booster: xgboost.Booster, examples: Examples, stops: list[int]
) -> list[tuple[int, NDArray[np.float32]]]:
    """For each number of trees in `stops` (rising) the scores so far, float32 [rows]: each tree is evaluated once."""
    total = np.zeros(len(examples.grades), np.float32)
    out, low = [], 0
    for high in stops:
        if high > low and len(total):
            total = total + booster.inplace_predict(
                examples.matrix, iteration_range=(low, high), predict_type="margin", validate_features=False
            )
        low = high
        out.append((high, total))
    return out
