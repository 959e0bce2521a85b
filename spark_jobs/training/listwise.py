"""listwise: the weights of a sum of a few numbers that put what was taken first, learnt by a softmax over each list."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from spark_jobs.training.examples import Examples


def weights_of(columns: NDArray[np.floating], examples: Examples) -> tuple[float, ...]:
    """The weights w that make what was taken most likely, if of a list one item is taken by softmax(w x):

        loss(w) = - mean over users of sum_i grade_i log softmax(w x)_i / sum_i grade_i      (ListNet, Cao and others 2007)

    It is convex, so the result does not depend on where the search begins. columns: [rows, k], finite; examples: of users who each
    have a taken row.
    """
    x = columns.astype(np.float64)
    spread = x.std(axis=0)
    spread[spread == 0] = 1.0
    x /= spread
    grades, starts, owners = examples.grades.astype(np.float64), examples.starts[:-1], examples.owners
    share = grades / np.add.reduceat(grades, starts)[owners]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = x @ weights
        scores -= np.maximum.reduceat(scores, starts)[owners]
        chances = np.exp(scores)
        sums = np.add.reduceat(chances, starts)
        value = -(share * (scores - np.log(sums)[owners])).sum() / len(examples)
        return value, (chances / sums[owners] - share) @ x / len(examples)

    found = minimize(loss, np.eye(1, x.shape[1])[0], jac=True, method="L-BFGS-B")
    return tuple(float(weight) for weight in found.x / spread)
