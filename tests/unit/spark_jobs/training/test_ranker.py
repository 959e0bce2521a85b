"""The ranker learns what tells taken candidates apart; with nothing to learn it keeps the order and says so."""

from __future__ import annotations

import numpy as np
import pytest

from infra.catalog.features.ranking import LAST_ITEMS, RANKER_FEATURES, definition_hash
from spark_jobs.training.examples import Examples
from spark_jobs.training.one_list import SHOWN
from spark_jobs.training.ranker import IN_ORDER, OBJECTIVE, gains, keep_order, learn, scores_by_trees

_GENRE, _RANK, _STORED = (
    RANKER_FEATURES.index(name) for name in ("genre_match", "retrieval_rank_log", "retrieval_score")
)


def examples(*, users: int, rows: int, seed: int = 1, taken: bool = True) -> Examples:
    """Lists in which the candidate of the highest genre match is taken, wherever it lies."""
    rng = np.random.default_rng(seed)
    matrix = rng.random((users * rows, len(RANKER_FEATURES))).astype(np.float32)
    ranks = np.tile(np.arange(rows, dtype=np.int32), users)
    matrix[:, _RANK] = np.log1p(ranks)
    matrix[:, _STORED] = 1 - ranks / rows
    best = matrix[:, _GENRE].reshape(users, rows).argmax(axis=1) + np.arange(users) * rows
    grades = np.zeros(users * rows, np.uint8)
    grades[best] = int(taken)
    return Examples(
        users=np.arange(users, dtype=np.int32),
        counts=np.full(users, rows, np.int64),
        n_wanted=np.ones(users, np.int32),
        matrix=matrix,
        grades=grades,
        products=np.zeros((users * rows, LAST_ITEMS), np.float32),
        popular_hits=np.zeros((users, SHOWN), np.bool_),
    )


def test_it_learns_the_feature_that_decides_and_names_it_in_its_gains() -> None:
    ranker = learn(examples(users=240, rows=30), trees=15, seed=1, longest=30)
    assert ranker.learnt and ranker.objective == OBJECTIVE and ranker.users == 240
    fresh = examples(users=50, rows=30, seed=2)
    scores = ranker.booster().inplace_predict(fresh.matrix, validate_features=False).reshape(50, 30)
    assert np.mean(scores.argmax(axis=1) == fresh.grades.reshape(50, 30).argmax(axis=1)) > 0.6
    shares = gains(ranker.booster())
    assert next(iter(shares)) == "genre_match" and sum(shares.values()) == pytest.approx(1) and len(shares) == 30


def test_the_model_carries_its_features_names_and_as_many_trees_as_were_asked_for() -> None:
    booster = learn(examples(users=40, rows=20), trees=7, seed=1, longest=20).booster()
    assert tuple(booster.feature_names or ()) == RANKER_FEATURES and booster.num_boosted_rounds() == 7


def test_the_same_examples_and_seed_give_the_same_bytes_and_the_signature_names_them() -> None:
    one, two = (learn(examples(users=40, rows=20), trees=5, seed=3, longest=20) for _ in range(2))
    other = learn(examples(users=40, rows=20, seed=9), trees=5, seed=3, longest=20)
    assert one.content == two.content and one.signature == two.signature != other.signature
    assert definition_hash() in one.signature and "base_score=0" in one.signature and OBJECTIVE in one.signature


@pytest.mark.parametrize("longest", [1, 2, 60, 1000, 10_000])
def test_with_nothing_to_learn_from_it_keeps_the_order_of_every_list(longest: int) -> None:
    nothing = examples(users=50, rows=3, taken=False)
    ranker = learn(nothing, trees=4, seed=1, longest=longest)
    assert not ranker.learnt and ranker.objective == IN_ORDER
    matrix = np.random.default_rng(3).random((longest, len(RANKER_FEATURES))).astype(np.float32)
    matrix[:, _RANK] = np.log1p(np.arange(longest))
    scores = ranker.booster().inplace_predict(matrix, validate_features=False)
    assert np.argsort(-scores, kind="stable").tolist() == list(range(longest))
    assert len(np.unique(scores)) >= min(longest, 3000) and ranker.booster().num_boosted_rounds() == 4


def test_a_handful_of_users_is_not_learnt_by_heart() -> None:
    assert not learn(examples(users=19, rows=30), trees=5, seed=1, longest=30).learnt
    assert learn(examples(users=20, rows=30), trees=5, seed=1, longest=30).learnt


def test_scores_of_the_first_trees_add_up_to_those_of_all() -> None:
    some = examples(users=40, rows=20)
    booster = learn(some, trees=10, seed=1, longest=20).booster()
    stops = dict(scores_by_trees(booster, some, [1, 4, 10]))
    np.testing.assert_allclose(stops[10], booster.inplace_predict(some.matrix), rtol=1e-5, atol=1e-6)
    first = booster.inplace_predict(some.matrix, iteration_range=(0, 4))
    np.testing.assert_allclose(stops[4], first, rtol=1e-5, atol=1e-6)


def test_keeping_the_order_looks_at_nothing_but_the_place() -> None:
    shares = gains(keep_order(trees=3, longest=100).booster())
    assert shares["retrieval_rank_log"] == 1.0
