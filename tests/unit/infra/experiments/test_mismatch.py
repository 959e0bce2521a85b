"""The test of the split: its e-value against the ratio it stands for, what it finds, and how seldom it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from infra.experiments.mismatch import VOID_AT, mismatch_e_values
from tests.unit.infra.experiments.scenes import canary


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_the_e_value_is_the_mean_likelihood_under_the_prior_over_the_likelihood_as_meant(share: float) -> None:
    treated = np.random.default_rng(1).random(60) < 0.4
    prior = beta(1000 * share, 1000 * (1 - share))
    k, n = int(treated.sum()), len(treated)

    def ratio(theta: float) -> float:
        return float(prior.pdf(theta)) * (theta / share) ** k * ((1 - theta) / (1 - share)) ** (n - k)

    wanted, _ = quad(ratio, 1e-6, 1 - 1e-6, points=[share], limit=200)
    assert mismatch_e_values(treated, share=share)[-1] == pytest.approx(wanted, rel=1e-6)


def test_it_is_a_martingale_of_mean_one() -> None:
    """After one user: the two values it may take, weighted by their chances."""
    values = [mismatch_e_values(np.array([drawn]), share=0.05)[0] for drawn in (True, False)]
    assert 0.05 * values[0] + 0.95 * values[1] == pytest.approx(1.0)


@pytest.mark.parametrize(("share", "users"), [(0.5, 2000), (0.05, 4000)])
def test_a_side_that_loses_half_its_users_is_found(share: float, users: int) -> None:
    rng = np.random.default_rng(2)
    treated = rng.random((100, users)) < share / (2 - share) * 0.999
    assert (mismatch_e_values(treated, share=share).max(axis=-1) >= VOID_AT).mean() > 0.9


def test_a_split_as_meant_is_hardly_ever_called_void_however_often_it_is_looked_at() -> None:
    treated = np.random.default_rng(3).random((2000, 3000)) < 0.1
    assert (mismatch_e_values(treated, share=0.1).max(axis=-1) >= VOID_AT).mean() <= 2 / VOID_AT


def test_a_gross_mismatch_is_a_number_and_no_overflow() -> None:
    assert math.isfinite(mismatch_e_values(np.ones(100_000, np.bool_), share=0.05)[-1])


def test_the_split_of_the_buckets_is_as_meant() -> None:
    for fraction in (0.05, 0.5):
        tried = canary(fraction, salt="a salt")
        treated = np.array([tried.takes(f"u{number}") for number in range(20_000)])
        assert mismatch_e_values(treated, share=fraction).max() < VOID_AT
