"""SHAP values of the trees: they add up to the score, of all trees and of the first so many, unknown values among them."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost

from bentos.ranking.contributions import contributions
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.candidates import Float32s
from tests.fixtures.tiny_snapshot import tiny_ranker

TREES = 60


@pytest.fixture(scope="module")
def ranker() -> xgboost.Booster:
    booster = xgboost.Booster()
    booster.load_model(bytearray(tiny_ranker(trees=TREES)))
    booster.set_param({"nthread": 1})
    return booster


def rows(n: int) -> Float32s:
    rng = np.random.default_rng(9)
    features = rng.random((n, len(RANKER_FEATURES))).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    return features


@pytest.mark.parametrize("trees", [1, 25, TREES])
def test_shares_and_bias_add_up_to_what_the_trees_give(trees: int, ranker: xgboost.Booster) -> None:
    features = rows(200)
    shares = contributions(ranker, features, trees=trees)
    scores = ranker.inplace_predict(features, iteration_range=(0, trees), validate_features=False)
    assert np.abs(shares.sum(axis=1) - scores).max() < 1e-4
    assert len(np.unique(shares[:, -1])) == 1


def test_a_feature_that_no_tree_asks_for_gives_nothing(ranker: xgboost.Booster) -> None:
    asked = ranker.get_score(importance_type="weight")
    shares = contributions(ranker, rows(50), trees=TREES)
    unasked = [at for at, name in enumerate(RANKER_FEATURES) if name not in asked]
    assert not shares[:, unasked].any()
    decisive = RANKER_FEATURES.index("item_popularity_log")
    assert np.abs(shares[:, decisive]).mean() > np.abs(np.delete(shares[:, :-1], decisive, axis=1)).mean()


def test_no_rows_have_no_shares(ranker: xgboost.Booster) -> None:
    assert contributions(ranker, rows(0), trees=TREES).shape == (0, len(RANKER_FEATURES) + 1)
