"""NDCG, recall and PSI against hand-worked values and a naive oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts.metrics import ndcg_at_k, population_stability_index, recall_at_k


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 10), st.integers(1, 30))
def test_ndcg_equals_the_formula_written_out(hits: list[bool], missed: int, k: int) -> None:
    relevant = sum(hits) + missed
    gained = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits[:k], 1) if hit)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(relevant, k) + 1))
    wanted = gained / ideal if relevant else 0.0
    assert ndcg_at_k(np.array(hits, bool), n_relevant=relevant, k=k) == pytest.approx(wanted)


def test_a_perfect_list_has_ndcg_one_and_recall_of_what_fits() -> None:
    hits = np.array([True, True, True, False])
    assert ndcg_at_k(hits, n_relevant=3, k=10) == pytest.approx(1.0)
    assert recall_at_k(hits, n_relevant=6, k=2) == pytest.approx(1 / 3)


def test_psi_is_zero_for_the_same_sample_and_large_for_a_shifted_one() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=5000)
    assert population_stability_index(sample, sample) == pytest.approx(0.0)
    assert population_stability_index(sample, rng.normal(size=5000)) < 0.02
    assert population_stability_index(sample, sample + 1.0) > 0.25
