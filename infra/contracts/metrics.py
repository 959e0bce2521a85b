"""metrics: how good a ranked list is; the formulas of the field's published tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ndcg_at_k(hits: NDArray[np.bool_], *, n_relevant: int, k: int) -> float:
    """Binary NDCG@k. hits: bool [n], whether the item at each rank is relevant, best rank first.

    DCG = sum over ranks r = 1..k of hit_r / log2(r + 1); the ideal list has min(n_relevant, k) hits at the top
    (Jarvelin and Kekalainen 2002, with the ideal of the published Gowalla tables). 0 where nothing is relevant.
    """
    if n_relevant <= 0:
        return 0.0
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gained = float(discounts[: len(hits[:k])] @ hits[:k].astype(np.float64))
    return gained / float(discounts[: min(n_relevant, k)].sum())


def recall_at_k(hits: NDArray[np.bool_], *, n_relevant: int, k: int) -> float:
    """Share of the relevant items among the first k. hits: bool [n]. 0 where nothing is relevant."""
    return float(hits[:k].sum()) / n_relevant if n_relevant > 0 else 0.0


def population_stability_index(expected: NDArray[np.float64], seen: NDArray[np.float64], *, bins: int = 10) -> float:
    """PSI of two samples: sum of (s - e) ln(s / e) over the expected sample's quantile bins; 0 means alike, above 0.25 moved.

    expected, seen: float64 [n], [m], finite. Empty bins count as half an observation.
    """
    if len(expected) == 0 or len(seen) == 0:
        return 0.0
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1]))
    expected_counts = np.bincount(np.searchsorted(edges, expected), minlength=len(edges) + 1)
    seen_counts = np.bincount(np.searchsorted(edges, seen), minlength=len(edges) + 1)
    e = np.maximum(expected_counts, 0.5) / len(expected)
    s = np.maximum(seen_counts, 0.5) / len(seen)
    return float(np.sum((s - e) * np.log(s / e)))
