"""Judging one look: each way it may go, and the sentence it says."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from infra.catalog.applications.ranking import RANKING
from infra.config.settings import Settings
from infra.experiments.confidence import difference
from infra.experiments.judgement import SETTLE, Judgement, Rules, Verdict, judge
from infra.experiments.visits import Visits
from tests.unit.infra.experiments.scenes import RULES, after, canary, drawn_visits

TRIED = canary(0.5)
ROUGH = replace(RULES, tolerance=0.2, conversion_tolerance=0.2)
SOON_S = 3600.0
TOO_LATE_S = RULES.lasts.total_seconds()


def at(visits: Visits, seconds: float = SOON_S, rules: Rules = ROUGH) -> Judgement:
    return judge(visits, TRIED, rules, after(seconds))


def test_a_canary_that_is_surely_no_worse_is_promoted() -> None:
    found = at(drawn_visits(TRIED, 20_000))
    assert found.verdict is Verdict.PROMOTED
    assert re.fullmatch(
        r"Surely no worse than the live snapshot by more than the margin in all 4 metrics, "
        r"of (9|10),\d{3} users and (9|10),\d{3} beside them\.",
        found.because,
    )
    assert found.live_users + found.canary_users == 20_000


def test_a_canary_that_is_surely_worse_is_rolled_back_and_the_metric_named() -> None:
    found = at(drawn_visits(TRIED, 4000, clicks=(0.3, 0.15), slow=(0.01, 0.2)))
    assert found.verdict is Verdict.ROLLED_BACK
    assert re.fullmatch(
        r"Surely worse than the live snapshot: click-through -1\d\.\d\d \[-\d+\.\d\d, -\d+\.\d\d\] percentage points "
        r"from \d+\.\d\d%, slow lists \+\d+\.\d\d \[.*\] percentage points from \d\.\d\d%\.",
        found.because,
    )


def test_one_that_is_neither_waits_and_says_for_what() -> None:
    found = at(drawn_visits(TRIED, 2500))
    assert (found.verdict, found.because) == (
        Verdict.WAITS,
        "Neither surely worse nor surely good enough yet: conversion, slow lists.",
    )


def test_one_that_is_better_but_has_too_few_users_waits() -> None:
    few = at(drawn_visits(TRIED, 1500, clicks=(0.3, 0.9), buys=(0.2, 0.8), slow=(0.5, 0.0)))
    assert few.verdict is Verdict.WAITS
    assert re.fullmatch(r"\d+ users of the canary and \d+ beside them; wanted 1,000 on either side\.", few.because)


def test_after_its_time_it_expires_unless_it_is_decided_at_that_look() -> None:
    undecided = drawn_visits(TRIED, 2500)
    assert at(undecided, TOO_LATE_S - 1).verdict is Verdict.WAITS
    expired = at(undecided, TOO_LATE_S)
    assert expired.verdict is Verdict.EXPIRED
    assert expired.because.startswith("Not decided within 24 hours. Neither surely worse nor")
    assert at(drawn_visits(TRIED, 20_000), TOO_LATE_S).verdict is Verdict.PROMOTED
    assert at(drawn_visits(TRIED, 4000, clicks=(0.3, 0.1)), TOO_LATE_S).verdict is Verdict.ROLLED_BACK


def test_nobody_at_all_waits_then_expires() -> None:
    nobody = drawn_visits(TRIED, 0)
    found = at(nobody)
    assert (found.verdict, found.mismatch, found.live_users) == (Verdict.WAITS, 1.0, 0)
    assert found.summary == "click-through not known yet, of 0 users: waits"
    assert all(math.isinf(metric.low) and math.isinf(metric.high) for metric in found.metrics)
    assert at(nobody, TOO_LATE_S).verdict is Verdict.EXPIRED


def test_a_canary_that_services_cannot_serve_is_rolled_back_once_they_had_the_time_to_load_it() -> None:
    early, late = SETTLE.total_seconds() - 1, SETTLE.total_seconds()
    found = at(drawn_visits(TRIED, 400, unserved=1.0, begun_s=late))
    assert found.verdict is Verdict.ROLLED_BACK and "services cannot serve v2" in found.because
    assert at(drawn_visits(TRIED, 400, unserved=1.0, begun_s=early)).verdict is Verdict.WAITS
    assert at(drawn_visits(TRIED, 90, unserved=1.0, begun_s=late)).verdict is Verdict.WAITS
    mended = at(drawn_visits(TRIED, 400, unserved=1.0, begun_s=late, unserved_lately=0.0))
    assert mended.verdict is Verdict.WAITS, "it was slow to load, and is served by now"


def test_a_canary_that_was_often_not_served_is_not_promoted() -> None:
    found = at(drawn_visits(TRIED, 20_000, unserved=0.1))
    assert found.verdict is Verdict.WAITS
    assert found.because == "10% of the canary's lists were answered by the live snapshot; wanted 5% at most."
    assert at(drawn_visits(TRIED, 20_000, unserved=0.03)).verdict is Verdict.PROMOTED


def test_users_that_are_missing_from_the_canary_roll_it_back() -> None:
    found = at(drawn_visits(TRIED, 5000, share=0.4))
    assert found.verdict is Verdict.ROLLED_BACK and found.mismatch >= 1000
    assert re.fullmatch(
        r"[12],\d{3} of 5,000 users were the canary's where 2,500 were meant: lists of v2 do not reach its users\.",
        found.because,
    )


@pytest.mark.parametrize("clicks", [0.3, 0.1])
def test_a_void_comparison_decides_nothing(clicks: float) -> None:
    """More users than meant, or lists logged for the other side: no figure means anything then."""
    split = at(drawn_visits(TRIED, 20_000, share=0.6, clicks=(0.3, clicks)))
    assert split.verdict is Verdict.WAITS and split.because.startswith("The comparison is void: 1")
    wrong = at(replace(drawn_visits(TRIED, 20_000, clicks=(0.3, clicks)), misassigned=3))
    assert (wrong.verdict, wrong.because) == (
        Verdict.WAITS,
        "The comparison is void: 3 lists were logged for another side than their user's.",
    )


def test_each_metric_errs_on_its_bad_side_with_a_quarter_of_alpha_and_is_tuned_for_the_users_wanted_on_the_smaller_side() -> (
    None
):
    tried, visits = canary(0.1), drawn_visits(canary(0.1), 3000)
    metric = judge(visits, tried, RULES, after(SOON_S)).metrics[0]
    path = difference(visits.click_through, visits.treated, share=0.1, alpha=2 * 0.05 / 4, tuned_for=10_000)
    assert (metric.difference, metric.low, metric.high) == (path.mean[-1], path.low[-1], path.high[-1])
    assert metric.live_mean == pytest.approx(visits.click_through[~visits.treated].mean())
    assert metric.canary_mean == pytest.approx(visits.click_through[visits.treated].mean())


def test_margins_are_a_share_of_the_live_mean_and_a_point_for_slow_and_degraded() -> None:
    rules = replace(RULES, tolerance=0.2, conversion_tolerance=0.3)
    found = judge(drawn_visits(TRIED, 4000), TRIED, rules, after(SOON_S))
    clicks, buys, slow, degraded = found.metrics
    assert clicks.margin == pytest.approx(-0.2 * clicks.live_mean)
    assert buys.margin == pytest.approx(-0.3 * buys.live_mean)
    assert (slow.margin, degraded.margin) == (0.01, 0.01)


def test_the_summary_is_one_line_in_per_cent_of_the_live_mean() -> None:
    found = at(drawn_visits(TRIED, 2500))
    pattern = r"click-through [+-]\d+\.\d % \[-\d+\.\d, \+\d+\.\d\] of 2,500 users: waits"
    assert re.fullmatch(pattern, found.summary), found.summary
    told = float(found.summary.split()[1])
    assert told == pytest.approx(100 * found.metrics[0].difference / found.metrics[0].live_mean, abs=0.06)


def test_the_drawn_path_is_thinned_and_ends_where_the_interval_does() -> None:
    metric = at(drawn_visits(TRIED, 4000)).metrics[0]
    path = metric.path
    assert len(path.users) <= 160 and path.users[-1] == 4000 and path.users[0] >= 100
    assert (path.mean[-1], path.low[-1], path.high[-1]) == (metric.difference, metric.low, metric.high)
    assert np.isfinite(path.low).all()


def test_the_rules_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ALPHA", "0.1"),
        ("TOLERANCE", "0.05"),
        ("CONVERSION_TOLERANCE", "0.4"),
        ("USERS", "70"),
        ("HOURS", "3"),
    ):
        monkeypatch.setenv(f"HEADGATE_CANARY_{name}", value)
    monkeypatch.setenv("HEADGATE_VISIT_MINUTES", "2")
    rules = Rules.of(Settings(), RANKING)
    assert (rules.tolerance, rules.conversion_tolerance) == (0.05, 0.4)
    assert (rules.alpha, rules.tolerance, rules.users, rules.lasts.total_seconds()) == (0.1, 0.05, 70, 10_800)
    assert (rules.visit.length.total_seconds(), rules.visit.slow_ms) == (120, RANKING.slow_ms)
    assert Rules.of(Settings(), RANKING, hours=0.5).lasts.total_seconds() == 1800
