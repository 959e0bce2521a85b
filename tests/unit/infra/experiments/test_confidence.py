"""The confidence sequence: against arithmetic done the long way, against what the paper says, and against its own promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from infra.contracts.errors import InvalidRequest
from infra.experiments.confidence import difference, one_sample, tuned_rho_squared, unit_margin

ALPHA, TUNED_FOR = 0.05, 400.0


def long_margin(deviation: float, n: int, rho_squared: float, alpha: float) -> float:
    """Theorem 2.2, term by term."""
    inside = 2 * (n * rho_squared + 1) / (n**2 * rho_squared) * math.log(math.sqrt(n * rho_squared + 1) / alpha)
    return deviation * math.sqrt(inside)


def test_the_mean_of_one_sample_is_as_the_formula_says_user_by_user() -> None:
    values = np.random.default_rng(1).random(300)
    path = one_sample(values, alpha=ALPHA, tuned_for=TUNED_FOR)
    rho_squared = tuned_rho_squared(alpha=ALPHA, n=TUNED_FOR)
    for n in (50, 51, 120, 300):
        seen = values[:n].tolist()
        mean = math.fsum(seen) / n
        variance = math.fsum((value - mean) ** 2 for value in seen) / n + math.log(1 / ALPHA) / n
        half = long_margin(math.sqrt(variance), n, rho_squared, ALPHA)
        assert (path.mean[n - 1], path.low[n - 1], path.high[n - 1]) == pytest.approx((mean, mean - half, mean + half))


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_the_difference_is_as_the_formula_says_user_by_user(share: float) -> None:
    rng = np.random.default_rng(2)
    values, treated = rng.random(3000), rng.random(3000) < share
    path = difference(values, treated, share=share, alpha=ALPHA, tuned_for=TUNED_FOR)
    rho_squared = tuned_rho_squared(alpha=ALPHA, n=TUNED_FOR)
    scores: list[float] = []
    past = 0.0
    for n, (value, drawn) in enumerate(zip(values.tolist(), treated.tolist(), strict=True), start=1):
        scores.append((value - past) * (1 / share if drawn else -1 / (1 - share)))
        past = math.fsum(values[:n].tolist()) / n
        if n not in (1500, 2999):
            continue
        mean = math.fsum(scores) / n
        seen = math.fsum((score - mean) ** 2 for score in scores) / n
        alike = math.fsum((value - past) ** 2 for value in values[:n].tolist()) / n / (share * (1 - share))
        variance = max(seen, alike) + (1 / min(share, 1 - share)) ** 2 / n
        half = long_margin(math.sqrt(variance), n, rho_squared, ALPHA)
        assert (path.mean[n - 1], path.low[n - 1], path.high[n - 1]) == pytest.approx((mean, mean - half, mean + half))


def test_the_difference_is_that_of_the_means() -> None:
    rng = np.random.default_rng(3)
    treated = rng.random(200_000) < 0.3
    values = (rng.random(200_000) < np.where(treated, 0.25, 0.4)).astype(np.float64)
    path = difference(values, treated, share=0.3, alpha=ALPHA, tuned_for=TUNED_FOR)
    assert path.mean[-1] == pytest.approx(values[treated].mean() - values[~treated].mean(), abs=1e-3)
    assert path.low[-1] < -0.15 < path.high[-1] < 0


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.0125, 0.001])
def test_the_tuned_sequence_is_tightest_at_the_number_it_was_tuned_for(alpha: float) -> None:
    n = 1000.0
    best = minimize_scalar(
        lambda log_rho: float(unit_margin(np.array([n]), rho_squared=math.exp(2 * log_rho), alpha=alpha)[0]),
        bounds=(-8.0, 1.0),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert tuned_rho_squared(alpha=alpha, n=n) == pytest.approx(math.exp(2 * best.x), rel=1e-3)


def test_rho_is_near_the_approximation_that_the_paper_gives_in_elementary_functions() -> None:
    near = math.sqrt((-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 500)
    assert math.sqrt(tuned_rho_squared(alpha=0.05, n=500)) == pytest.approx(near, rel=0.02)


@pytest.mark.parametrize(("alpha", "n"), [(0.0, 10.0), (1.0, 10.0), (0.05, 0.0)])
def test_what_cannot_be_tuned_is_refused(alpha: float, n: float) -> None:
    with pytest.raises(InvalidRequest, match="wanted alpha between 0 and 1"):
        tuned_rho_squared(alpha=alpha, n=n)


def test_there_is_no_interval_before_fifty_users_a_side() -> None:
    values = np.random.default_rng(4).random(1000)
    alone = one_sample(values, alpha=ALPHA, tuned_for=TUNED_FOR)
    assert np.isinf(alone.low[:49]).all() and np.isfinite(alone.low[49:]).all()
    treated = np.arange(1000) % 10 == 0
    path = difference(values, treated, share=0.1, alpha=ALPHA, tuned_for=TUNED_FOR)
    fiftieth = np.flatnonzero(treated)[49]
    assert np.isinf(path.high[:fiftieth]).all() and np.isfinite(path.high[fiftieth:]).all()
    never = difference(values, np.zeros(1000, np.bool_), share=0.1, alpha=ALPHA, tuned_for=TUNED_FOR)
    assert np.isinf(never.low).all()


def test_nobody_of_the_treated_converting_yet_is_no_fall() -> None:
    """3 % convert; by chance none of the first 200 treated does. The variance seen is then of the others alone."""
    number = np.arange(4000)
    treated = number % 20 == 0
    values = np.isin(number % 100, (1, 2, 3)).astype(np.float64)
    path = difference(values, treated, share=0.05, alpha=0.0125, tuned_for=20_000)
    assert path.mean[-1] < -0.025 and path.high.min() > 0
    scores = (values - 0.03) * np.where(treated, 20.0, -1 / 0.95)
    deviation = np.sqrt(scores.var() + 20.0**2 / 4000)
    rho_squared = tuned_rho_squared(alpha=0.0125, n=20_000)
    assert scores.mean() + deviation * unit_margin(np.array([4000.0]), rho_squared=rho_squared, alpha=0.0125)[0] < 0


def test_values_all_alike_have_an_interval_that_is_no_point() -> None:
    path = one_sample(np.zeros(500), alpha=ALPHA, tuned_for=TUNED_FOR)
    assert 0.003 < path.high[-1] < 0.03
    treated = np.arange(500) % 2 == 0
    both = difference(np.ones(500), treated, share=0.5, alpha=ALPHA, tuned_for=TUNED_FOR)
    assert both.low[-1] < 0 < both.high[-1]


def test_stacked_experiments_are_those_one_by_one() -> None:
    rng = np.random.default_rng(5)
    values, treated = rng.random((3, 400)), rng.random((3, 400)) < 0.5
    stacked = difference(values, treated, share=0.5, alpha=ALPHA, tuned_for=TUNED_FOR)
    for row in range(3):
        alone = difference(values[row], treated[row], share=0.5, alpha=ALPHA, tuned_for=TUNED_FOR)
        np.testing.assert_array_equal(stacked.low[row], alone.low)


@pytest.mark.parametrize("rate", [0.3, 0.02])
def test_one_sample_is_left_by_its_mean_no_oftener_than_promised_at_any_number_of_users(rate: float) -> None:
    values = (np.random.default_rng(6).random((500, 4000)) < rate).astype(np.float64)
    path = one_sample(values, alpha=ALPHA, tuned_for=1000)
    left = ((path.low > rate) | (path.high < rate)).any(axis=-1)
    assert left.mean() <= ALPHA
