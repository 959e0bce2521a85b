"""worth: what each scorer adds on the held-out window to what the scorers before it made, and whether it earns its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from infra.catalog.features.ranking import NETWORK_HEAD, RANKER_FEATURES, RANKER_HEAD
from infra.contracts.candidates import Float32s
from spark_jobs.training.evaluation import Floats, order_of
from spark_jobs.training.examples import Examples

RETRIEVAL, LIGHT, TREES, NETWORK = "retrieval", "light", "ranker", "network"
"""The stages by their names in the cascade."""

RESAMPLES = 1000
_STORED = RANKER_FEATURES.index("retrieval_score")

Rows = NDArray[np.int64]
Scorer = Callable[[Rows], Float32s]
"""float32 [m]: the scores of those rows of the examples."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A mean difference over users, and the 95 % interval of it by a paired bootstrap."""

    mean: float
    low95: float
    high95: float


@dataclass(frozen=True, slots=True)
class Worth:
    """A stage on the held-out window. ndcg10: of the list after it. gain: over the list of the last stage before it that is on.

    on: whether serving applies it: the interval of its gain lies above 0.
    """

    name: str
    ndcg10: float
    gain: Gain
    on: bool


def paired(difference: Floats, *, seed: int) -> Gain:
    """The percentile bootstrap (Efron 1979) of RESAMPLES resamples; difference: float64 [users]. No users: 0 all over."""
    if not len(difference):
        return Gain(0.0, 0.0, 0.0)
    rng = np.random.default_rng(seed)
    means = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return Gain(float(difference.mean()), float(low), float(high))


def stages_on(
    examples: Examples, *, light: Scorer | None, trees: Scorer | None, network: Scorer | None, seed: int
) -> tuple[Worth, ...]:
    """The stages that there are, in their order, each on what those before it that earn their place leave; retrieval first.

    The network takes the trees' scores in, so it is on only where they are.
    """
    scores = examples.matrix[:, _STORED]
    ndcg = order_of(examples, scores).ndcg
    told = [Worth(RETRIEVAL, _mean(ndcg), Gain(0.0, 0.0, 0.0), on=True)]
    wired = ((LIGHT, light, None), (TREES, trees, RANKER_HEAD), (NETWORK, network, NETWORK_HEAD))
    trees_scores: Float32s | None = None
    for name, scorer, most in wired:
        if scorer is None:
            continue
        before = trees_scores if name == NETWORK and trees_scores is not None else scores
        made = headed(examples, before, scorer, most=most)
        after = order_of(examples, made).ndcg
        gain = paired(after - ndcg, seed=seed)
        on = gain.low95 > 0 and (name != NETWORK or trees_scores is scores)
        told.append(Worth(name, _mean(after), gain, on))
        if name == TREES:
            trees_scores = made
        if on:
            scores, ndcg = made, after
    return tuple(told)


def headed(examples: Examples, before: Float32s, scorer: Scorer, *, most: int | None) -> Float32s:
    """float32 [rows]: of each list the best `most` by the scores before (None: all) with new scores, the others behind in order."""
    heads, tails = [], []
    for low, high in pairwise(examples.starts.tolist()):
        order = low + np.argsort(-before[low:high], kind="stable")
        heads.append(order[:most])
        tails.append(order[len(heads[-1]) :])
    out = np.empty(len(before), np.float32)
    if heads:
        out[np.concatenate(heads)] = scorer(np.concatenate(heads))
    for head, tail in zip(heads, tails, strict=True):
        if len(tail):
            out[tail] = out[head].min() - np.arange(1, len(tail) + 1, dtype=np.float32)
    return out


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0
