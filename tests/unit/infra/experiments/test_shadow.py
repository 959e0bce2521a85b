"""The report of a shadow: pairs by request, and every figure by hand."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId
from infra.experiments.judgement import Verdict
from infra.experiments.shadow import ShadowReport, report_shadow
from infra.experiments.visits import Did
from tests.unit.infra.experiments.scenes import (
    GENERATION,
    RULE,
    VISIT,
    after,
    arm_of,
    canary,
    did,
    shown,
    users_of,
)

ALL = canary(1.0, mode=CanaryMode.SHADOW)


def items(*numbers: int) -> tuple[ItemId, ...]:
    return tuple(ItemId(f"i{number}") for number in numbers)


def pair(
    user: str,
    at_s: float,
    live: tuple[ItemId, ...],
    unseen: tuple[ItemId, ...] | None,
    *,
    ms: tuple[float, float] = (20.0, 30.0),
) -> list[Exposure]:
    request = f"{user}@{at_s}"
    found = [shown(user, at_s, items=live, request=request, total_ms=ms[0])]
    if unseen is not None:
        found.append(shown(user, at_s, items=unseen, request=request, arm=Arm.SHADOW, total_ms=ms[1]))
    return found


def report(
    exposures: list[Exposure], events: list[Did] | None = None, *, tried: Canary = ALL, now_s: float = 9000.0
) -> ShadowReport:
    return report_shadow(
        exposures,
        events or [],
        canary=tried,
        generation=GENERATION,
        rule=RULE,
        lasts=timedelta(hours=3),
        now=after(now_s),
    )


def test_lists_of_one_request_are_compared_and_a_request_without_a_shadow_list_is_missing() -> None:
    lists = pair("a", 0, items(1, 2), items(2, 1)) + pair("b", 0, items(1, 2), None) + pair("c", 1, items(1), items(1))
    found = report(lists[::-1])
    assert (found.requests, found.pairs) == (3, 2) and found.missing == pytest.approx(1 / 3)
    assert (found.overlap_page, found.same_first) == (1.0, 0.5)


def test_overlap_is_of_the_longer_list_on_the_first_page_and_in_all() -> None:
    lists = pair("a", 0, items(*range(20)), items(*range(5), *range(100, 105), *range(10, 20)))
    found = report(lists)
    assert (found.overlap_page, found.overlap_all) == (0.5, 0.75)
    assert report(pair("a", 0, items(1, 2, 3, 4), items(4))).overlap_all == 0.25
    both_empty = report(pair("a", 0, (), ()))
    assert (both_empty.overlap_all, both_empty.empty, both_empty.empty_live) == (1.0, 1.0, 1.0)


def test_latency_is_of_the_pairs_alone() -> None:
    lists = [one for n in range(101) for one in pair("a", n, items(1), items(1), ms=(float(n), 2.0 * n))]
    lists += pair("b", 0, items(1), None, ms=(1e6, 0))
    found = report(lists)
    assert (found.latency_live.p50_ms, found.latency_live.p99_ms) == (50.0, 99.0)
    assert (found.latency.p50_ms, found.latency.p99_ms) == (100.0, 198.0)


def test_a_click_counts_once_a_list_where_the_item_was_shown_and_in_time() -> None:
    lists = pair("a", 0, items(1, 2, 3), items(3, 9, 1)) + pair("b", 0, items(5, 6), items(7, 8))
    events = [
        did("a", 5, "i3"),
        did("a", 6, "i3", what="purchase"),
        did("a", 7, "i1"),
        did("a", 8, "i9"),
        did("a", 9, "i2", what="view"),
        did("b", 5, "i6"),
        did("b", VISIT.total_seconds() + 1, "i5"),
    ]
    clicked = report(lists, events).clicked
    assert clicked.clicks == 3 and clicked.in_shadow == pytest.approx(2 / 3)
    assert (clicked.live_rank, clicked.shadow_rank) == (2.0, 2.0)


def test_only_users_of_the_fraction_and_lists_of_the_generation_count() -> None:
    half = canary(0.5, mode=CanaryMode.SHADOW)
    (inside,), (outside,) = users_of(half, Arm.CANARY, 1), users_of(half, Arm.LIVE, 1)
    assert arm_of(half, inside) is Arm.CANARY
    lists = pair(inside, 0, items(1), items(1)) + pair(outside, 0, items(1), None)
    lists.append(shown(inside, 5, generation=GENERATION - 1))
    found = report(lists, tried=half)
    assert (found.requests, found.missing) == (1, 0.0)


def test_lists_of_the_last_seconds_are_not_missing_yet() -> None:
    found = report(pair("a", 100, items(1), None), now_s=105)
    assert (found.requests, found.pairs) == (0, 0)
    assert report(pair("a", 100, items(1), None), now_s=110).missing == 1.0


def test_a_shadow_waits_until_its_time_is_over_and_never_goes_live() -> None:
    lists = pair("a", 0, items(1), items(1))
    early, late = report(lists, now_s=3 * 3600 - 1), report(lists, now_s=3 * 3600)
    assert (early.verdict, late.verdict) == (Verdict.WAITS, Verdict.EXPIRED)
    assert early.because == "It runs for 3 hours; a shadow does not go live by itself."
    assert late.summary == "overlap@10 100 % of 1 lists: expired"


def test_without_a_pair_nothing_is_known() -> None:
    found = report([])
    assert found.summary == "no pairs of 0 lists: waits"
    assert all(
        math.isnan(value) for value in (found.missing, found.overlap_all, found.latency.p99_ms, found.clicked.in_shadow)
    )
