"""The rule as a whole, simulated: how often a canary as good as the live snapshot is rolled back, and what it does find.

Each experiment is looked at after every user. The same rule is what `judge` applies at one look: the last test compares them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from infra.experiments.confidence import Bools, Float64s, difference
from infra.experiments.judgement import METRICS, SLOWER_BY, Rules, Verdict, judge
from infra.experiments.visits import Visits
from tests.unit.infra.experiments.scenes import RULE, START, after, canary

ALPHA = 0.05
EXPERIMENTS, USERS = 500, 4000

Draw = Callable[[np.random.Generator, Bools], list[Float64s]]


def rules(*, tolerance: float = 0.1, users: int = 1000) -> Rules:
    return Rules(
        alpha=ALPHA,
        tolerance=tolerance,
        conversion_tolerance=tolerance,
        users=users,
        lasts=RULE.length * 100,
        visit=RULE,
    )


def happened(rng: np.random.Generator, chance: Float64s | float, like: Bools) -> Float64s:
    return (rng.random(like.shape) < chance).astype(np.float64)


def equal_bernoulli(rng: np.random.Generator, treated: Bools) -> list[Float64s]:
    return [happened(rng, chance, treated) for chance in (0.3, 0.05, 0.02, 0.005)]


def equal_skewed(rng: np.random.Generator, treated: Bools) -> list[Float64s]:
    """Most users at 0, few far out; conversions of 1 %."""
    return [
        rng.beta(0.2, 2.0, treated.shape),
        happened(rng, 0.01, treated),
        rng.beta(0.05, 2.0, treated.shape),
        happened(rng, 0.05, treated) * rng.random(treated.shape),
    ]


def rolled_back(columns: list[Float64s], treated: Bools, share: float, chosen: Rules) -> Bools:
    """bool [..., n]: whether the rule rolls back after each user."""
    found = np.zeros(treated.shape, np.bool_)
    for metric, values in zip(METRICS, columns, strict=True):
        path = difference(
            values, treated, share=share, alpha=chosen.metric_alpha, tuned_for=chosen.users / min(share, 1 - share)
        )
        found |= path.high < 0 if metric.better > 0 else path.low > 0
    return found


def promoted(columns: list[Float64s], treated: Bools, share: float, chosen: Rules) -> Bools:
    """bool [..., n]: whether the rule promotes after each user, if it has not rolled back."""
    n = np.arange(1, treated.shape[-1] + 1)
    n_treated = np.cumsum(treated, axis=-1)
    found = (n_treated >= chosen.users) & (n - n_treated >= chosen.users)
    for metric, values in zip(METRICS, columns, strict=True):
        path = difference(
            values, treated, share=share, alpha=chosen.metric_alpha, tuned_for=chosen.users / min(share, 1 - share)
        )
        live = np.cumsum(values * ~treated, axis=-1) / np.maximum(n - n_treated, 1)
        found &= path.low >= -chosen.tolerance * live if metric.better > 0 else path.high <= SLOWER_BY
    return found


@pytest.mark.parametrize("draw", [equal_bernoulli, equal_skewed])
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_an_equal_canary_is_rolled_back_no_oftener_than_stated(draw: Draw, share: float) -> None:
    rng = np.random.default_rng(20_260_501)
    treated = rng.random((EXPERIMENTS, USERS)) < share
    wrong = rolled_back(draw(rng, treated), treated, share, rules()).any(axis=-1)
    assert wrong.mean() <= ALPHA


def test_a_fixed_interval_looked_at_after_every_user_rejects_far_oftener_than_stated() -> None:
    """The control: the same data, one metric alone, the textbook's interval at 95 %."""
    rng = np.random.default_rng(20_260_501)
    treated = rng.random((EXPERIMENTS, USERS)) < 0.5
    values = equal_bernoulli(rng, treated)[0]
    n = np.cumsum(treated, axis=-1), np.cumsum(~treated, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.cumsum(values * treated, axis=-1) / n[0], np.cumsum(values * ~treated, axis=-1) / n[1]
        error = np.sqrt(sum(mean * (1 - mean) / users for mean, users in zip(means, n, strict=True)))
        wrong = (means[0] - means[1] + 1.96 * error < 0) & (np.minimum(*n) >= 50)
    assert wrong[:, -1].mean() <= 0.05
    assert wrong.any(axis=-1).mean() > 2 * ALPHA


def test_a_fall_of_a_tenth_is_caught_in_most() -> None:
    rng, chosen = np.random.default_rng(7), rules()
    treated = rng.random((100, 24_000)) < 0.5
    columns = [happened(rng, np.where(treated, 0.27, 0.3), treated)]
    columns += [happened(rng, chance, treated) for chance in (0.05, 0.02, 0.005)]
    caught = rolled_back(columns, treated, 0.5, chosen).any(axis=-1)
    assert caught.mean() > 0.8


def test_a_tank_is_caught_within_a_few_users() -> None:
    rng = np.random.default_rng(8)
    treated = rng.random((100, 1500)) < 0.5
    columns = [happened(rng, np.where(treated, 0.1, 0.3), treated)]
    columns += [happened(rng, chance, treated) for chance in (0.05, 0.02, 0.005)]
    assert rolled_back(columns, treated, 0.5, rules()).any(axis=-1).mean() > 0.95


def test_one_that_is_slow_is_caught() -> None:
    rng = np.random.default_rng(9)
    treated = rng.random((100, 6000)) < 0.2
    columns = [happened(rng, chance, treated) for chance in (0.3, 0.05)]
    columns += [happened(rng, np.where(treated, 0.10, 0.02), treated), happened(rng, 0.005, treated)]
    assert rolled_back(columns, treated, 0.2, rules()).any(axis=-1).mean() > 0.95


def test_one_that_is_no_worse_is_promoted_in_most_and_one_beyond_the_margin_hardly_ever() -> None:
    rng, chosen = np.random.default_rng(10), rules(tolerance=0.2)
    treated = rng.random((100, 20_000)) < 0.5

    def decided(clicks: Float64s | float) -> tuple[float, float]:
        columns = [happened(rng, chance, treated) for chance in (clicks, 0.2, 0.01, 0.002)]
        up, down = (rule(columns, treated, 0.5, chosen) for rule in (promoted, rolled_back))
        first_up, first_down = (np.where(way.any(axis=-1), way.argmax(axis=-1), np.inf) for way in (up, down))
        return float((first_up < first_down).mean()), float((first_down < first_up).mean())

    good, falsely_refused = decided(0.3)
    assert good > 0.8 and falsely_refused <= ALPHA
    bad, _ = decided(np.where(treated, 0.8 * 0.3, 0.3))
    assert bad <= ALPHA


def test_the_simulated_rule_is_the_one_that_judges() -> None:
    rng, chosen, tried = np.random.default_rng(11), rules(tolerance=0.2), canary(0.5)
    seen = set[Verdict]()
    for clicks in (0.3, 0.15):
        treated = rng.random(20_000) < 0.5
        columns = [happened(rng, chance, treated) for chance in (np.where(treated, clicks, 0.3), 0.2, 0.01, 0.002)]
        down, up = (rule(columns, treated, 0.5, chosen) for rule in (rolled_back, promoted))
        for n in (90, 600, 3000, 9000, 20_000):
            verdict = judge(_visits(columns, treated, n), tried, chosen, after(3600)).verdict
            expected = Verdict.ROLLED_BACK if down[n - 1] else Verdict.PROMOTED if up[n - 1] else Verdict.WAITS
            assert verdict is expected
            seen.add(verdict)
    assert seen == {Verdict.ROLLED_BACK, Verdict.PROMOTED, Verdict.WAITS}


def _visits(columns: list[Float64s], treated: Bools, n: int) -> Visits:
    clicks, buys, slow, degraded = (values[:n] for values in columns)
    none = np.zeros(n)
    return Visits(treated[:n], none + START.timestamp(), clicks, buys, slow, degraded, none, pending=0, misassigned=0)
