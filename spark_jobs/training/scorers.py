"""scorers: all that one training teaches: the light scorer, the trees, the network, and what each does with examples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xgboost
from numpy.typing import NDArray

from infra.catalog.features.ranking import NETWORK_FEATURES
from infra.contracts.candidates import Float32s
from infra.snapshots.network import Network
from spark_jobs.training import network
from spark_jobs.training.examples import Examples
from spark_jobs.training.light import Weights, learn_light, scores_of
from spark_jobs.training.ranker import Ranker, learn
from spark_jobs.training.worth import Scorer, Worth, stages_on


@dataclass(frozen=True, slots=True)
class Scorers:
    """light: weights, network: ONNX; both None where the ranker learnt nothing, the network also where all are taken."""

    ranker: Ranker
    light: Weights | None
    network: bytes | None


def teach(examples: Examples, *, trees: int, seed: int, longest: int) -> Scorers:
    """From the users who took one of their candidates. longest: of the lists that one who learns nothing keeps in order."""
    ranker = learn(examples, trees=trees, seed=seed, longest=longest)
    if not ranker.learnt:
        return Scorers(ranker, None, None)
    teaching = examples.where(examples.found())
    light = learn_light(teaching)
    if teaching.grades.all():
        return Scorers(ranker, light, None)
    inputs = network.inputs_of(
        teaching,
        trees=_unseen_scores(teaching, trees=trees, seed=seed, longest=longest),
        light=scores_of(light, teaching),
    )
    return Scorers(ranker, light, network.exported(network.fit(teaching, inputs, seed=seed)))


def judged(scorers: Scorers, examples: Examples, *, seed: int) -> tuple[Worth, ...]:
    """Each stage on the held-out lists, as serving runs them."""
    trees = _predicted(scorers.ranker.booster(), examples)
    if scorers.light is None:
        return stages_on(examples, light=None, trees=trees.__getitem__, network=None, seed=seed)
    light = scores_of(scorers.light, examples)
    net: Scorer | None = None
    if scorers.network is not None:
        inputs = network.inputs_of(examples, trees=trees, light=light)
        loaded = Network(scorers.network, inputs=len(NETWORK_FEATURES))
        net = lambda rows: loaded.scores(inputs[rows])
    return stages_on(examples, light=light.__getitem__, trees=trees.__getitem__, network=net, seed=seed)


def _unseen_scores(examples: Examples, *, trees: int, seed: int, longest: int) -> Float32s:
    """float32 [rows]: of each user by trees that did not learn from that user, as serving's trees have not."""
    out = np.zeros(len(examples.grades), np.float32)
    half = np.arange(len(examples)) % 2 == 0

    def take(mine: NDArray[np.bool_]) -> None:
        other = learn(examples.where(~mine), trees=trees, seed=seed, longest=longest)
        out[mine[examples.owners]] = _predicted(other.booster(), examples.where(mine))

    with ThreadPoolExecutor(2) as pool:  # each learns on one core
        list(pool.map(take, (half, ~half)))
    return out


def _predicted(booster: xgboost.Booster, examples: Examples) -> Float32s:
    if not len(examples.grades):
        return np.zeros(0, np.float32)
    return np.asarray(booster.inplace_predict(examples.matrix, validate_features=False), np.float32)
