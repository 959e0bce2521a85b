"""The figures are the published formulas over every user of the window, the same users for every order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from spark_jobs.training.evaluation import evaluate, order_of
from spark_jobs.training.one_list import SHOWN
from spark_jobs.training.ranker import keep_order, learn
from tests.unit.spark_jobs.training.test_ranker import examples


def test_an_order_is_judged_by_hand_counted_hits() -> None:
    two = examples(users=2, rows=20)
    grades = np.zeros(40, np.uint8)
    grades[[0, 3, 20 + 12]] = 1, 2, 1
    two = dataclasses.replace(two, grades=grades, n_wanted=np.array([3, 1], np.int32))
    order = order_of(two, -np.arange(40, dtype=np.float32))
    ideal = np.sum(1 / np.log2([2, 3, 4]))
    assert order.ndcg[0] == pytest.approx((1 + 1 / np.log2(5)) / ideal) and order.ndcg[1] == 0
    assert order.recall.tolist() == [pytest.approx(2 / 3), 0.0], "one of the three was not retrieved, and counts"
    assert order.hits_at[[0, 3, 12]].tolist() == [0.5, 0.5, 0.5] and order.hits_at.sum() == 1.5


def test_a_ranker_that_knows_beats_retrieval_and_the_curve_ends_at_its_figure() -> None:
    model = learn(examples(users=120, rows=30), trees=20, seed=1, longest=30)
    judged = evaluate(model.booster(), examples(users=60, rows=30, seed=4), trees=20)
    metrics = judged.metrics
    assert metrics["ranker"]["ndcg@10"] > 2 * metrics["retrieval"]["ndcg@10"] > 0
    assert metrics["popularity"]["ndcg@10"] == 0 and metrics["held_out"]["users"] == 60
    assert judged.curve[-1] == (20, metrics["ranker"]["ndcg@10"]) and judged.ceiling == 1.0
    gained, give = judged.gain_over_retrieval()
    assert gained > give > 0


def test_a_ranker_that_keeps_the_order_has_the_figures_of_retrieval() -> None:
    some = examples(users=30, rows=40)
    judged = evaluate(keep_order(trees=5, longest=40).booster(), some, trees=5)
    np.testing.assert_array_equal(judged.ranker.ndcg, judged.retrieval.ndcg)


def test_popularity_is_judged_on_the_same_users() -> None:
    some = examples(users=4, rows=20)
    hits = np.zeros((4, SHOWN), np.bool_)
    hits[0, 0] = True
    judged = evaluate(keep_order(trees=2, longest=20).booster(), dataclasses.replace(some, popular_hits=hits), trees=2)
    assert judged.metrics["popularity"] == {"ndcg@10": 0.25, "recall@10": 0.25}


def test_without_users_there_are_no_figures_rather_than_zeros() -> None:
    none = examples(users=5, rows=10).where(np.zeros(5, np.bool_))
    judged = evaluate(keep_order(trees=2, longest=10).booster(), none, trees=2)
    assert judged.metrics == {"ranker": {}, "retrieval": {}, "popularity": {}, "held_out": {"users": 0.0}}
    assert judged.gain_over_retrieval() == (0.0, 0.0)
