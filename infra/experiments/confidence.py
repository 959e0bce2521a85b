"""confidence: intervals that hold at every number of users at once, so that they may be looked at as often as one likes.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and
asymptotic confidence sequences" (Annals of Statistics 52, 2024; arXiv:2103.06476), Theorem 2.2: for observations with mean mu and
finite variance, with the running mean m_n and standard deviation s_n,

    m_n +- s_n * sqrt( 2 (n rho^2 + 1) / (n^2 rho^2) * log( sqrt(n rho^2 + 1) / alpha ) )

holds mu at all n at once, except with a chance that approaches alpha (two-sided). rho says at which n it is tightest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw

from infra.contracts.errors import InvalidRequest

Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]

AT_LEAST = 50
"""Observations (a side, where two are compared) before there is an interval: an asymptotic one says nothing of fewer."""


@dataclass(frozen=True, slots=True)
class Path:
    """An estimate after each observation, and the interval around it: float64 [..., n]; infinite where there are too few."""

    mean: Float64s
    low: Float64s
    high: Float64s


def tuned_rho_squared(*, alpha: float, n: float) -> float:
    """The rho^2 at which the sequence is tightest after n observations.

    (-W(-alpha^2 / e) - 1) / n with W the lower branch of Lambert's function (the paper's appendix on tuning rho): with
    x = n rho^2 + 1 the width's square is proportional to x / (x - 1) * log(x / alpha^2), least where x - log x = 1 - log alpha^2.
    """
    if not (0.0 < alpha < 1.0 and n > 0):
        raise InvalidRequest(f"alpha is {alpha} and n {n}; wanted alpha between 0 and 1, and n above 0.")
    return float((-lambertw(-(alpha**2) / np.e, k=-1).real - 1.0) / n)


def unit_margin(n: Float64s, *, rho_squared: float, alpha: float) -> Float64s:
    """Half the width after n observations (n >= 1) whose standard deviation is 1; the same shape as n."""
    x = n * rho_squared + 1.0
    return np.sqrt(2.0 * x / (n * n * rho_squared) * np.log(np.sqrt(x) / alpha))


def one_sample(values: Float64s, *, alpha: float, tuned_for: float, at_least: int = AT_LEAST) -> Path:
    """The mean of observations within [0, 1]: float64 [..., n] in their order; experiments of the same length may be stacked.

    log(1 / alpha) observations more, as far from the mean as can be, are added to the variance: observations that were all
    alike so far (nobody of 60 users bought) do not make the interval a point. So many, because a rate r shows nothing in n
    users with chance exp(-r n): the interval must reach to where that is alpha.
    """
    n = _numbers(values)
    mean = np.cumsum(values, axis=-1) / n
    deviation = np.sqrt(_variance(values, n) - np.log(alpha) / n)
    return _around(mean, deviation, n, enough=n >= at_least, alpha=alpha, tuned_for=tuned_for)


def difference(
    values: Float64s, treated: Bools, *, share: float, alpha: float, tuned_for: float, at_least: int = AT_LEAST
) -> Path:
    """The mean of the treated less that of the others, of observations within [0, 1] whose sides were drawn.

    values: float64 [..., n], treated: bool of the same shape, in the order of the draws; share: the chance to be treated.
    The sequence of the scores (the paper's section 3 on randomised experiments)

        psi_i = (Y_i - m_(i-1)) * (T_i / p - (1 - T_i) / (1 - p))

    whose mean is the difference whatever m_(i-1) is, as long as it is made of the past: here the mean of all before. Its
    variance is the largest of what was seen and of what it would be were both sides alike, var(Y) / (p (1 - p)), plus one
    observation as far out as can be. Where conversions are rare and the treated few, the variance seen is of the others
    alone until a first treated user converts, and much too small: without this, chance alone would look like a fall.
    """
    n = _numbers(values)
    totals = np.cumsum(values, axis=-1)
    past = np.concatenate([np.zeros_like(totals[..., :1]), totals[..., :-1] / n[:-1]], axis=-1)
    scores = (values - past) * np.where(treated, 1.0 / share, -1.0 / (1.0 - share))
    mean = np.cumsum(scores, axis=-1) / n
    farthest = 1.0 / min(share, 1.0 - share)
    alike = _variance(values, n) / (share * (1.0 - share))
    deviation = np.sqrt(np.maximum(_variance(scores, n), alike) + farthest**2 / n)
    n_treated = np.cumsum(treated, axis=-1)
    enough = (n_treated >= at_least) & (n - n_treated >= at_least)
    return _around(mean, deviation, n, enough=enough, alpha=alpha, tuned_for=tuned_for)


def _numbers(values: Float64s) -> Float64s:
    return np.arange(1, values.shape[-1] + 1, dtype=np.float64)


def _variance(values: Float64s, n: Float64s) -> Float64s:
    """After each observation, over n; never below 0, whatever the rounding."""
    mean = np.cumsum(values, axis=-1) / n
    return np.maximum(np.cumsum(values * values, axis=-1) / n - mean * mean, 0.0)


def _around(mean: Float64s, deviation: Float64s, n: Float64s, *, enough: Bools, alpha: float, tuned_for: float) -> Path:
    rho_squared = tuned_rho_squared(alpha=alpha, n=tuned_for)
    half = np.where(enough, deviation * unit_margin(n, rho_squared=rho_squared, alpha=alpha), np.inf)
    return Path(mean, mean - half, mean + half)
