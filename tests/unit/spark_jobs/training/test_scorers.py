"""What one training teaches: weights that point the right way, and a network whose export is its source on 10,000 rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from infra.catalog.features.ranking import LIGHT_FEATURES, NETWORK_FEATURES, RANKER_FEATURES
from infra.snapshots.network import Network
from spark_jobs.training import network
from spark_jobs.training.examples import Examples
from spark_jobs.training.light import learn_light, scores_of
from spark_jobs.training.scorers import judged, teach
from tests.unit.spark_jobs.training.test_ranker import examples

_MATCH, _DEVICE = (RANKER_FEATURES.index(name) for name in ("recent_match", "device_code"))


def matching(*, users: int, rows: int, seed: int = 1) -> Examples:
    """Lists of which the candidate that matches the recent items best is taken."""
    some = examples(users=users, rows=rows, seed=seed)
    some.matrix[:, _DEVICE] = np.nan
    grades = np.zeros(users * rows, np.uint8)
    best = some.matrix[:, _MATCH].reshape(users, rows).argmax(axis=1)
    grades[best + np.arange(users) * rows] = 1
    products = np.random.default_rng(seed).normal(size=some.products.shape).astype(np.float32)
    return dataclasses.replace(some, grades=grades, products=products)


@pytest.fixture(scope="module")
def fitted() -> tuple[network.Fitted, np.ndarray]:
    some = matching(users=500, rows=40)
    light = scores_of(learn_light(some), some)
    inputs = network.inputs_of(some, trees=some.matrix[:, 0], light=light)
    return network.fit(some, inputs, seed=1), inputs


def test_the_light_scorer_weighs_what_tells_and_not_what_does_not() -> None:
    weights = dict(zip(LIGHT_FEATURES, learn_light(matching(users=200, rows=30)), strict=True))
    assert weights["recent_match"] > 5 * abs(weights["item_popularity_log"])
    assert weights["recent_match"] > 5 * abs(weights["retrieval_score_share"])


def test_unknown_popularity_adds_nothing() -> None:
    some = matching(users=2, rows=5)
    before = scores_of((1.0, 1.0, 0.0), some)
    some.matrix[3, RANKER_FEATURES.index("item_popularity_log")] = np.nan
    np.testing.assert_array_equal(scores_of((1.0, 1.0, 0.0), some), before)


def test_the_exported_network_is_its_source_on_ten_thousand_rows(fitted: tuple[network.Fitted, np.ndarray]) -> None:
    source, inputs = fitted
    rows = inputs[:10_000].copy()
    rows[np.random.default_rng(2).random(rows.shape) < 0.05] = np.nan
    rows[:, NETWORK_FEATURES.index("trees_score")] = inputs[:10_000, NETWORK_FEATURES.index("trees_score")]
    wanted = source.scores(rows)
    scores = Network(network.exported(source), inputs=len(NETWORK_FEATURES)).scores(rows)
    assert len(scores) == 10_000 and np.ptp(wanted) > 0.1
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
    chances = source.pipeline.predict_proba(rows.astype(np.float64))[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-source.logits(rows))), chances, rtol=1e-9)


def test_a_row_s_score_does_not_depend_on_the_others_to_the_bit(fitted: tuple[network.Fitted, np.ndarray]) -> None:
    source, inputs = fitted
    loaded = Network(network.exported(source), inputs=len(NETWORK_FEATURES))
    whole = loaded.scores(inputs[:1000])
    order = np.random.default_rng(3).permutation(1000)
    assert np.array_equal(loaded.scores(inputs[:1000][order]), whole[order])
    for n in (1, 7, 50, 199, 200, 201, 999):
        assert np.array_equal(loaded.scores(inputs[:n]), whole[:n])


def test_the_same_examples_and_seed_teach_the_same_bytes() -> None:
    one, two = (teach(matching(users=60, rows=30), trees=5, seed=3, longest=30) for _ in range(2))
    assert one == two and one.network is not None


def test_what_learnt_nothing_has_no_light_scorer_and_no_network() -> None:
    nobody = examples(users=50, rows=10, taken=False)
    taught = teach(nobody, trees=3, seed=1, longest=10)
    assert (taught.light, taught.network) == (None, None)
    assert [one.name for one in judged(taught, examples(users=30, rows=10), seed=1)] == ["retrieval", "ranker"]


def test_all_scorers_are_judged_in_the_order_of_the_cascade() -> None:
    taught = teach(matching(users=240, rows=30), trees=20, seed=1, longest=30)
    told = judged(taught, matching(users=100, rows=30, seed=4), seed=1)
    assert [one.name for one in told] == ["retrieval", "light", "ranker", "network"]
    assert told[1].on and told[1].ndcg10 > 0.9, "the match alone tells"
