"""light: the weights of the scorer that puts a list in order for the trees."""

from __future__ import annotations

import numpy as np

from infra.catalog.features.ranking import LIGHT_FEATURES, RANKER_FEATURES, light_scores
from infra.contracts.candidates import Float32s
from spark_jobs.training.examples import Examples
from spark_jobs.training.listwise import weights_of

Weights = tuple[float, ...]

_COLUMNS = [RANKER_FEATURES.index(name) for name in LIGHT_FEATURES]


def learn_light(examples: Examples) -> Weights:
    """One weight for each of LIGHT_FEATURES; examples: of users who each have a taken row."""
    return weights_of(np.nan_to_num(examples.matrix[:, _COLUMNS]), examples)


def scores_of(weights: Weights, examples: Examples) -> Float32s:
    """float32 [rows], by the function that the service calls."""
    return light_scores(weights, [examples.matrix[:, column] for column in _COLUMNS])
