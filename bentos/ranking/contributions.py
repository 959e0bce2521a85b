"""contributions: how much each feature gave to the trees' score of a row, by XGBoost's own SHAP values."""

from __future__ import annotations

import numpy as np
import xgboost
from numpy.typing import NDArray

from infra.contracts.candidates import Float32s

Contributions = NDArray[np.float64]


def contributions(ranker: xgboost.Booster, features: Float32s, *, trees: int) -> Contributions:
    """float64 [n, columns + 1]: each feature's part, and last the bias: what the trees give on average, the same for every row.

    A row's sum is the score that the first `trees` give it, up to float32's rounding. Exact Tree SHAP: Lundberg et al. 2020,
    "From local explanations to global understanding with explainable AI for trees".
    """
    if not len(features):
        return np.empty((0, features.shape[1] + 1))
    rows = xgboost.DMatrix(np.ascontiguousarray(features, np.float32), nthread=1)
    found = ranker.predict(rows, pred_contribs=True, iteration_range=(0, trees), validate_features=False)
    return np.asarray(found, np.float64)
