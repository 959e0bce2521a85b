"""Visits: each rule alone, and all of them against a slow reading of the same rules on drawn logs."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from infra.contracts.canaries import Canary
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId
from infra.experiments.visits import Did, Visits, canary_visits, live_visits
from tests.unit.infra.experiments.scenes import (
    GENERATION,
    LIVE,
    RULE,
    TRIED,
    VISIT,
    after,
    arm_of,
    canary,
    did,
    shown,
    users_of,
)

VISIT_S = VISIT.total_seconds()
TRIAL = canary(0.4)
ANN, BOB = users_of(TRIAL, Arm.LIVE, 2)
CAT, DAN = users_of(TRIAL, Arm.CANARY, 2)
LATER = after(VISIT_S * 4)


def visits(exposures: list[Exposure], events: list[Did] = [], *, now_s: float = VISIT_S * 4) -> Visits:  # noqa: B006
    return canary_visits(exposures, events, canary=TRIAL, generation=GENERATION, rule=RULE, now=after(now_s))


def test_each_user_is_one_row_in_the_order_of_the_first_lists() -> None:
    found = visits([shown(ANN, 20), shown(CAT, 10, arm=Arm.CANARY), shown(ANN, 5), shown(BOB, 15)])
    assert found.treated.tolist() == [False, True, False]
    assert found.first_seen_s.tolist() == [after(at).timestamp() for at in (5, 10, 15)]
    assert (len(found), found.pending, found.misassigned) == (3, 0, 0)


def test_a_visit_counts_once_it_is_over_and_ten_seconds_have_passed() -> None:
    lists = [shown(ANN, 0), shown(BOB, 60)]
    before, then = (visits(lists, now_s=VISIT_S + grace) for grace in (9.9, 10.0))
    assert (len(before), before.pending) == (0, 2)
    assert (len(then), then.pending) == (1, 1)


def test_lists_after_the_first_visit_count_nothing() -> None:
    lists = [shown(ANN, 0), shown(ANN, VISIT_S, total_ms=500), shown(ANN, VISIT_S + 1, degraded=True)]
    found = visits(lists, [did(ANN, VISIT_S + 2)])
    assert (found.slow.tolist(), found.degraded.tolist(), found.click_through.tolist()) == ([0.5], [0.0], [0.0])


def test_click_through_is_the_share_of_lists_of_which_a_shown_item_was_clicked() -> None:
    lists = [shown(ANN, 0, items=(ItemId("a"),)), shown(ANN, 100, items=(ItemId("b"),)), shown(BOB, 0)]
    events = [did(ANN, 110, "b"), did(ANN, 111, "b"), did(ANN, 112, "z"), did(BOB, 5, what="view")]
    assert visits(lists, events).click_through.tolist() == [0.5, 0.0]


@pytest.mark.parametrize(("at_s", "counts"), [(-5.1, 0), (-4.9, 1), (0, 1), (VISIT_S - 100, 1), (VISIT_S - 99, 0)])
def test_an_event_counts_from_five_seconds_before_its_list_to_the_end_of_the_visit(at_s: float, counts: int) -> None:
    lists = [shown(ANN, 0, items=(ItemId("x"),)), shown(ANN, 100)]
    assert visits(lists, [did(ANN, 100 + at_s)]).click_through.tolist() == [counts / 2]


def test_a_conversion_is_one_whatever_was_converted_and_a_click_as_well() -> None:
    lists = [shown(ANN, 0), shown(ANN, 10), shown(BOB, 0), shown(CAT, 0, arm=Arm.CANARY)]
    events = [did(ANN, 20, what="purchase"), did(ANN, 21, "i1", what="purchase"), did(BOB, 5, "z", what="purchase")]
    found = visits(lists, events)
    assert found.conversion.tolist() == [1.0, 0.0, 0.0]
    assert found.click_through.tolist() == [1.0, 0.0, 0.0]


def test_slow_is_above_the_applications_limit_and_degraded_as_the_service_said() -> None:
    lists = [shown(ANN, at, total_ms=ms, degraded=at == 0) for at, ms in enumerate((100.0, 100.1, 5.0, 300.0))]
    found = visits(lists)
    assert (found.slow.tolist(), found.degraded.tolist()) == ([0.5], [0.25])


def test_a_canarys_list_that_the_live_snapshot_answered_stays_on_the_canarys_side() -> None:
    lists = [shown(CAT, 0, arm=Arm.CANARY), shown(CAT, 1, arm=Arm.CANARY, version=LIVE), shown(ANN, 0, version=TRIED)]
    found = visits(lists)
    assert (found.treated.tolist(), found.unserved.tolist()) == ([True, False], [0.5, 0.0])


def test_only_lists_of_the_canarys_generation_count_and_no_shadows() -> None:
    lists = [
        shown(ANN, 30 - VISIT_S - 1, generation=GENERATION - 1),
        shown(ANN, 30),
        shown(BOB, 0, generation=GENERATION + 1),
        shown(CAT, 0, arm=Arm.SHADOW),
    ]
    found = visits(lists)
    assert found.first_seen_s.tolist() == [after(30).timestamp()]


def test_who_was_in_the_middle_of_a_visit_when_it_began_is_left_out_on_both_sides() -> None:
    lists = [
        shown(ANN, -5, generation=GENERATION - 1),
        shown(ANN, 30),
        shown(CAT, -10, generation=GENERATION - 1),
        shown(CAT, VISIT_S - 11, arm=Arm.CANARY),
        shown(DAN, -10, generation=GENERATION - 1),
        shown(DAN, VISIT_S + 10, arm=Arm.CANARY),
        shown(BOB, -5, generation=GENERATION - 1, arm=Arm.SHADOW),
        shown(BOB, 40),
    ]
    assert visits(lists).first_seen_s.tolist() == [after(at).timestamp() for at in (40, VISIT_S + 10)]


def test_what_was_served_lately_tells_of_visits_that_are_not_over_too() -> None:
    now_s = VISIT_S * 4
    lists = [shown(CAT, 0, arm=Arm.CANARY, version=LIVE), shown(DAN, now_s - 599, arm=Arm.CANARY)]
    lists += [shown(DAN, now_s - 1, arm=Arm.CANARY, version=LIVE), shown(ANN, now_s - 1)]
    found = visits(lists, now_s=now_s)
    assert (found.unserved.tolist(), found.pending, found.unserved_lately) == ([1.0], 2, 0.5)


def test_latency_is_of_all_lists_of_either_side() -> None:
    lists = [shown(ANN, at, total_ms=ms) for at, ms in enumerate((10.0, 20.0, 60.0))]
    lists += [shown(CAT, VISIT_S * 3, arm=Arm.CANARY, total_ms=5.0)]
    found = visits(lists)
    assert found.latency_live.p50_ms == 20.0
    assert found.latency_live.p99_ms == pytest.approx(float(np.percentile([10, 20, 60], 99)))
    assert (found.latency_canary.p50_ms, found.latency_canary.p99_ms) == (5.0, 5.0)
    assert np.isnan(visits([]).latency_live.p50_ms)


def test_a_list_that_says_the_other_arm_is_counted_and_its_users_side_is_the_buckets() -> None:
    found = visits([shown(ANN, 0, arm=Arm.CANARY), shown(DAN, 0, arm=Arm.CANARY), shown(CAT, 1, arm=Arm.LIVE)])
    assert (found.misassigned, sorted(found.treated.tolist())) == (2, [False, True, True])


def test_nothing_logged_is_no_visits() -> None:
    found = visits([])
    assert (len(found), found.click_through.shape, found.slow.shape) == (0, (0,), (0,))


def test_live_visits_leave_out_canaries_and_shadows() -> None:
    lists = [shown(ANN, 0), shown(CAT, 0, arm=Arm.CANARY), shown(BOB, 0, arm=Arm.SHADOW)]
    found = live_visits(lists, [did(ANN, 1)], rule=RULE, now=LATER)
    assert (found.treated.tolist(), found.click_through.tolist()) == ([False], [1.0])


@pytest.mark.parametrize("seed", range(4))
def test_visits_are_those_that_a_slow_reading_of_the_rules_finds(seed: int) -> None:
    exposures, events, now_s = drawn_logs(np.random.default_rng(seed))
    found = visits(exposures, events, now_s=now_s)
    slow = slow_visits(exposures, events, canary=TRIAL, now_s=now_s)
    columns = ("treated", "click_through", "conversion", "slow", "degraded", "unserved")
    rows = list(zip(*(getattr(found, name).tolist() for name in columns), strict=True))
    assert len(rows) > 20 and rows == [row for _, row in slow]
    assert found.click_through.sum() > 0 and found.conversion.sum() > 0 and found.pending > 0


def test_an_event_that_is_logged_twice_counts_as_once() -> None:
    exposures, events, now_s = drawn_logs(np.random.default_rng(9))
    once, twice = (visits(exposures, events * times, now_s=now_s) for times in (1, 2))
    assert once.click_through.tolist() == twice.click_through.tolist()
    assert once.conversion.tolist() == twice.conversion.tolist()


def drawn_logs(rng: np.random.Generator) -> tuple[list[Exposure], list[Did], float]:
    exposures, events = [], []
    for _ in range(600):
        user, at_s = f"u{rng.integers(60)}", round(float(rng.random() * VISIT_S * 1.5), 3)
        arm = Arm(rng.choice([arm_of(TRIAL, user), arm_of(TRIAL, user), Arm.SHADOW]))
        items = tuple(ItemId(f"i{item}") for item in rng.choice(30, size=4, replace=False))
        exposures.append(
            shown(
                user,
                at_s,
                arm=arm,
                version=LIVE if rng.random() < 0.2 else None,
                generation=GENERATION - int(rng.random() < 0.02),
                items=items,
                total_ms=float(rng.choice([20.0, 200.0])),
                degraded=bool(rng.random() < 0.1),
            )
        )
        what = str(rng.choice(["click", "view", "purchase", "rating"]))
        events.append(did(user, at_s + float(rng.normal(0, 20)), f"i{rng.integers(30)}", what=what))
    return exposures, events, VISIT_S * 1.6


def slow_visits(
    exposures: list[Exposure], events: list[Did], *, canary: Canary, now_s: float
) -> list[tuple[float, tuple[bool, float, float, float, float, float]]]:
    """User by user, list by list, event by event."""
    rows = []
    for user in {one.user_id for one in exposures}:
        mine = [
            one
            for one in exposures
            if one.user_id == user and one.generation == GENERATION and one.arm is not Arm.SHADOW
        ]
        if not mine:
            continue
        first = min(one.at for one in mine)
        earlier = [one.at for one in exposures if one.user_id == user and one.generation < GENERATION]
        shadows = [one.at for one in exposures if one.user_id == user and one.arm is Arm.SHADOW]
        if any(first - at <= VISIT for at in earlier if at not in shadows):
            continue
        if first + VISIT + timedelta(seconds=10) > after(now_s):
            continue
        lists = [one for one in mine if one.at <= first + VISIT]
        flags = []
        for one in lists:
            hits = [
                event.event_type
                for event in events
                if event.user_id == user
                and event.item_id in one.items
                and one.at.timestamp() - 5 <= event.logged_s <= (first + VISIT).timestamp()
            ]
            clicked = any(hit in {"click", "rating", "purchase"} for hit in hits)
            unserved = canary.takes(user) and one.version != TRIED
            flags.append((clicked, "purchase" in hits, one.total_ms > 100, one.degraded, unserved))
        clicks, buys, slow, degraded, unserved_of = (list(column) for column in zip(*flags, strict=True))
        n = len(lists)
        row = (
            canary.takes(user),
            sum(clicks) / n,
            float(any(buys)),
            sum(slow) / n,
            sum(degraded) / n,
            sum(unserved_of) / n,
        )
        rows.append((first.timestamp(), row))
    return sorted(rows, key=lambda pair: pair[0])
