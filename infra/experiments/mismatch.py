"""mismatch: whether users fall on the two sides as often as they were meant to; where not, the sides cannot be compared."""

from __future__ import annotations

import numpy as np
from scipy.special import betaln

from infra.experiments.confidence import Bools, Float64s

VOID_AT = 1000.0
"""A split that is as it was meant to be reaches this e-value once in a thousand experiments, however often it is looked at."""

_CONCENTRATION = 1000.0


def mismatch_e_values(treated: Bools, *, share: float) -> Float64s:
    """The evidence against the split after each user: float64 [..., n], from treated: bool [..., n] in the users' order.

    The sequential beta-binomial test of Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022;
    arXiv:2011.03567): with k of n treated, a = c * share and b = c * (1 - share),

        e_n = B(a + k, b + n - k) / B(a, b) / (share^k * (1 - share)^(n - k))

    is a martingale of mean 1 where the chance is `share`; by Ville's inequality it reaches 1 / alpha with a chance of at most
    alpha. c = 1000 looks for shares that are some tenths off: smaller ones want more users, larger ones are found as well.
    """
    n = np.arange(1, treated.shape[-1] + 1, dtype=np.float64)
    k = np.cumsum(treated, axis=-1, dtype=np.float64)
    a, b = _CONCENTRATION * share, _CONCENTRATION * (1.0 - share)
    logs = betaln(a + k, b + n - k) - betaln(a, b) - k * np.log(share) - (n - k) * np.log1p(-share)
    return np.exp(np.minimum(logs, 700.0))
