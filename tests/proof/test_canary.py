"""Simulated users judge canaries: one as good as the live snapshot is kept, one with worse lists caught.

Each experiment is looked at after every user. Users come in random order, a coin says who is shown the canary's list, and each
acts by the world's truth (visitors.py). The rules are the settings' own; every decision that is found on the whole path is asked
of `judge` again, at that user and just before.

Measured at the settings as shipped (alpha 0.05, tolerances 0.1 and 0.3, 1,000 users a side), 500 experiments each, half of the
users the canary's; live lists get 31.0 % clicks and 5.1 % purchases, the worse ones 25.0 % and 4.0 %:

    canary   users at most   rolled back   99 % sure         promoted   undecided   promoted or rolled back after (median)
    equal           24,000         1.4 %   at most 3.2 %       95.4 %       3.2 %   12,946 users
    worse           12,000         100 %   at least 99.1 %        0 %         0 %    1,847 users
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from infra.catalog.applications.ranking import RANKING
from infra.config.settings import settings
from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.ids import VersionName
from infra.experiments.confidence import Bools, Float64s, difference
from infra.experiments.judgement import METRICS, Rules, Verdict, column, judge
from infra.experiments.mismatch import VOID_AT, mismatch_e_values
from infra.experiments.visits import Visits
from infra.local.world.catalogue import item_ids, user_ids
from infra.local.world.generate import invent
from infra.local.world.oracle import Oracle
from infra.local.world.size import WorldSize
from infra.local.world.visitors import Chances, Visitors
from tests.fixtures.proof import sized

EXPERIMENTS = sized(500, full=2000)
USERS, ITEMS, LENGTH = 24_000, 2_000, 20
SHARE = 0.5
SLOW, DEGRADED = 0.02, 0.005
"""Shares of the lists of either side."""

START = datetime(2026, 5, 1, tzinfo=UTC)
CANARY = Canary(VersionName("v2"), "d" * 16, SHARE, "salt", CanaryMode.CANARY, started_at=START, started_by="ada")
_TOGETHER = 20  # experiments in memory at a time


@dataclass(frozen=True)
class Shop:
    """The chances of each response of every user of one world, to the lists of two snapshots."""

    live: Chances
    worse: Chances


@dataclass(frozen=True)
class Ended:
    """How many of the experiments ended how, and after how many users in the median. wrong: where `judge` said otherwise."""

    rolled_back: int
    promoted: int
    users: dict[Verdict, int]
    wrong: list[str]


@pytest.fixture(scope="module")
def shop() -> Shop:
    """Live: the true best 20 by the oracle's score with noise of deviation 1. Worse: a third of the places at random."""
    size = WorldSize(users=USERS, items=ITEMS, events=0, seed=20)
    users, items = user_ids(np.arange(USERS)).to_pylist(), item_ids(np.arange(ITEMS)).to_pylist()
    oracle, rng = Oracle(invent(size), users, items), np.random.default_rng(21)
    visitors = Visitors(oracle, rng)
    best = np.concatenate(
        [_best(oracle.matrix(users[low : low + 1000], visitors.ends), rng) for low in range(0, USERS, 1000)]
    )
    damaged = np.where(rng.random(best.shape) < 1 / 3, rng.integers(0, ITEMS, best.shape), best)
    names = np.array(items)
    live, worse = (visitors.chances(users, names[lists].tolist(), visitors.ends) for lists in (best, damaged))
    return Shop(live, worse)


def _best(true: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    noisy = true + rng.standard_normal(true.shape, dtype=np.float32)
    best = np.argpartition(-noisy, LENGTH, axis=1)[:, :LENGTH]
    order = np.argsort(-np.take_along_axis(noisy, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def experiments(shown: Chances, beside: Chances, *, users: int, rng: np.random.Generator) -> Iterator[Visits]:
    """Visits of `users` of the users, drawn and ordered anew each time: the canary's see `shown`, the others `beside`."""
    for _ in range(EXPERIMENTS):
        who = rng.permutation(USERS)[:users]
        treated = rng.random(users) < SHARE
        clicks, buys = np.zeros(users), np.zeros(users)
        for side, chances in ((treated, shown), (~treated, beside)):
            did = chances.of(who[side]).draw(rng)
            clicks[side], buys[side] = did.clicked, did.bought
        slow, degraded = ((rng.random(users) < share).astype(np.float64) for share in (SLOW, DEGRADED))
        yield _visits(treated, (clicks, buys, slow, degraded))


def _visits(treated: Bools, columns: tuple[Float64s, ...]) -> Visits:
    clicks, buys, slow, degraded = columns
    seen_s = START.timestamp() + np.arange(len(treated), dtype=np.float64)
    unserved = np.zeros(len(treated))
    return Visits(treated, seen_s, clicks, buys, slow, degraded, unserved, pending=0, misassigned=0)


def run(shown: Chances, beside: Chances, rules: Rules, *, users: int, seed: int) -> Ended:
    """All experiments, each until it is decided or its users have all come."""
    counts = {Verdict.ROLLED_BACK: 0, Verdict.PROMOTED: 0}
    after: dict[Verdict, list[int]] = {verdict: [] for verdict in counts}
    wrong = []
    drawn = list[Visits]()
    for visits in experiments(shown, beside, users=users, rng=np.random.default_rng(seed)):
        drawn.append(visits)
        if len(drawn) < _TOGETHER:
            continue
        for one, (verdict, n) in zip(drawn, decided(drawn, rules), strict=True):
            wrong += disagreements(one, verdict, n, rules)
            if verdict in counts:
                counts[verdict] += 1
                after[verdict].append(n)
        drawn.clear()
    medians = {verdict: int(np.median(found)) for verdict, found in after.items() if found}
    return Ended(counts[Verdict.ROLLED_BACK], counts[Verdict.PROMOTED], medians, wrong)


def decided(stack: list[Visits], rules: Rules) -> list[tuple[Verdict, int]]:
    """Each experiment's first decision and after how many users it fell; WAITS and all users where none did."""
    treated = np.stack([visits.treated for visits in stack])
    n = np.arange(1, treated.shape[1] + 1)
    n_canary = np.cumsum(treated, axis=1)
    void = mismatch_e_values(treated, share=SHARE)
    void_so_far = np.maximum.accumulate(void, axis=1) >= VOID_AT
    down = np.zeros(treated.shape, np.bool_)
    up = np.minimum(n_canary, n - n_canary) >= rules.users
    for metric in METRICS:
        values = np.stack([column(visits, metric) for visits in stack])
        path = difference(
            values,
            treated,
            share=SHARE,
            alpha=rules.metric_alpha,
            tuned_for=rules.users / min(SHARE, 1 - SHARE),
        )
        live = np.cumsum(values * ~treated, axis=1) / np.maximum(n - n_canary, 1)
        margin = live * rules.margin(metric.name, 1.0) if metric.better > 0 else rules.margin(metric.name, 1.0)
        down |= path.high < 0 if metric.better > 0 else path.low > 0
        up &= path.low >= margin if metric.better > 0 else path.high <= margin
    down = np.where(void_so_far, n_canary < SHARE * n, down)
    up &= ~void_so_far & ~down
    return [_first(*rows) for rows in zip(down, up, strict=True)]


def _first(down: Bools, up: Bools) -> tuple[Verdict, int]:
    ends = down | up
    if not ends.any():
        return Verdict.WAITS, len(ends)
    at = int(ends.argmax())
    return Verdict.ROLLED_BACK if down[at] else Verdict.PROMOTED, at + 1


def disagreements(visits: Visits, verdict: Verdict, n: int, rules: Rules) -> list[str]:
    """Where `judge` says something else than was found: after n users, or one user earlier."""
    said = []
    for users, wanted in ((n, verdict), (n - 1, Verdict.WAITS)):
        first = _visits(visits.treated[:users], tuple(column(visits, metric)[:users] for metric in METRICS))
        got = judge(first, CANARY, rules, START + timedelta(minutes=1)).verdict
        if got is not wanted:
            said.append(f"after {users} users: {got}, wanted {wanted}")
    return said


def at_most(count: int) -> float:
    """The chance that is surely not exceeded, by what happened in `count` of the experiments: Clopper and Pearson, 99 %."""
    return float(beta.ppf(0.99, count + 1, EXPERIMENTS - count))


def at_least(count: int) -> float:
    """The chance that is surely reached; the same for the other side."""
    return float(beta.ppf(0.01, count, EXPERIMENTS - count + 1))


def test_an_equal_canary_is_rolled_back_no_oftener_than_alpha_and_promoted_in_most(shop: Shop) -> None:
    rules = Rules.of(settings(), RANKING)
    ended = run(shop.live, shop.live, rules, users=USERS, seed=22)
    assert ended.wrong == []
    assert at_most(ended.rolled_back) <= rules.alpha, ended
    assert at_least(ended.promoted) >= 0.8, ended


def test_a_canary_with_a_third_of_its_places_at_random_is_caught_in_nearly_all(shop: Shop) -> None:
    rules = Rules.of(settings(), RANKING)
    ended = run(shop.worse, shop.live, rules, users=USERS // 2, seed=23)
    assert ended.wrong == []
    assert at_least(ended.rolled_back) >= 0.95, ended
    assert ended.promoted == 0, ended
