"""evaluation: how well the ranker, retrieval alone and popularity foretell what users took in the held-out window."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xgboost
from numpy.typing import NDArray

from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.metrics import ndcg_at_k, recall_at_k
from spark_jobs.training.examples import Examples
from spark_jobs.training.one_list import SHOWN
from spark_jobs.training.ranker import scores_by_trees

NDCG, RECALL = f"ndcg@{SHOWN}", f"recall@{SHOWN}"
"""The metrics' names in the manifest."""

STOPS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Shares of the trees at which the learning curve is drawn."""

POSITIONS = 50
"""Positions of the list whose hits are counted one by one."""

_STORED = RANKER_FEATURES.index("retrieval_score")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Order:
    """One way to order the same users' lists. ndcg, recall: float64 [users]; hits_at: float64 [<= POSITIONS], the share of
    users who took the item at that position."""

    ndcg: Floats
    recall: Floats
    hits_at: Floats

    def metrics(self) -> dict[str, float]:
        """Means over the users; nothing where there are none."""
        if not len(self.ndcg):
            return {}
        return {NDCG: float(self.ndcg.mean()), RECALL: float(self.recall.mean())}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The three orders on the held-out window, every user of it counted, also those whose items were not retrieved.

    curve: (trees, mean NDCG) of the ranker cut short. ceiling: the mean share of the wanted items that are anywhere in the
    list, which no order of it can pass. list_length: of the longest list.
    """

    users: int
    ranker: Order
    retrieval: Order
    popularity: Order
    curve: tuple[tuple[int, float], ...]
    ceiling: float
    list_length: int

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """As the manifest keeps them."""
        retrieval = self.retrieval.metrics()
        if self.users:
            retrieval["recall@list"] = self.ceiling
        return {
            "ranker": self.ranker.metrics(),
            "retrieval": retrieval,
            "popularity": self.popularity.metrics(),
            "held_out": {"users": float(self.users)},
        }

    def gain_over_retrieval(self) -> tuple[float, float]:
        """Mean difference of NDCG, ranker less retrieval, and the half width of its 95 % interval over users."""
        difference = self.ranker.ndcg - self.retrieval.ndcg
        if len(difference) < 2:
            return float(difference.sum()), 0.0
        return float(difference.mean()), 1.96 * float(difference.std(ddof=1)) / float(np.sqrt(len(difference)))


def evaluate(booster: xgboost.Booster, examples: Examples, *, trees: int) -> Evaluation:
    """Judge on whole lists. Ties of the ranker keep the order of the list, as serving does."""
    stops = sorted({max(1, round(share * trees)) for share in STOPS})
    curve, scores = [], np.zeros(len(examples.grades), np.float32)
    ranker = order_of(examples, scores)
    for n_trees, scores in scores_by_trees(booster, examples, stops):
        ranker = order_of(examples, scores)
        curve.append((n_trees, float(ranker.ndcg.mean()) if len(examples) else 0.0))
    found = np.bincount(examples.owners, examples.grades > 0, minlength=len(examples))
    return Evaluation(
        users=len(examples),
        ranker=ranker,
        retrieval=order_of(examples, examples.matrix[:, _STORED]),
        popularity=_judged(examples.popular_hits, examples.n_wanted),
        curve=tuple(curve),
        ceiling=float(np.mean(found / examples.n_wanted)) if len(examples) else 0.0,
        list_length=int(examples.counts.max(initial=0)),
    )


def order_of(examples: Examples, scores: NDArray[np.float32]) -> Order:
    """The lists by falling score, float32 [rows], ties by position."""
    hits = np.zeros((len(examples), POSITIONS), np.bool_)
    for user, (low, high) in enumerate(pairwise(examples.starts)):
        best = np.argsort(-scores[low:high], kind="stable")[:POSITIONS]
        hits[user, : len(best)] = examples.grades[low:high][best] > 0
    return _judged(hits, examples.n_wanted)


def _judged(hits: NDArray[np.bool_], n_wanted: NDArray[np.integer]) -> Order:
    pairs = list(zip(hits, n_wanted.tolist(), strict=True))
    ndcg = np.array([ndcg_at_k(row, n_relevant=n, k=SHOWN) for row, n in pairs], np.float64)
    recall = np.array([recall_at_k(row, n_relevant=n, k=SHOWN) for row, n in pairs], np.float64)
    return Order(ndcg, recall, hits.mean(axis=0) if len(hits) else np.zeros(hits.shape[1]))
