"""What a stage will take: learnt as a line, never starved by a slow hour, never started again and again for nothing."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.cascade.costs import StageCost

MOST_TRIES_APART = 17
"""Refusals in a row, and the try."""


class Run(NamedTuple):
    size: int
    ms: float
    left_behind: bool


runs = st.lists(
    st.builds(Run, st.integers(0, 2000), st.floats(0, 10_000, allow_nan=False), st.booleans()), min_size=1, max_size=80
)


def after(past: list[Run]) -> StageCost:
    cost = StageCost()
    for run in past:
        (cost.note_overrun if run.left_behind else cost.note)(run.size, run.ms)
    return cost


def is_started(cost: StageCost, size: int, left_ms: float) -> bool:
    """As the runner asks."""
    return cost.predict_ms(size) <= left_ms or cost.may_try()


def test_of_what_never_ran_nothing_is_known_and_it_is_started() -> None:
    cost = StageCost()
    assert not cost.is_known
    assert cost.predict_ms(1000) == 0
    assert cost.size_within(0.1, most=1000) == 1000


def test_a_line_is_learnt_from_what_lies_on_it() -> None:
    cost = after([Run(size, 3 + 0.02 * size, False) for _ in range(40) for size in (100, 400, 1000)])
    assert cost.predict_ms(200) == pytest.approx(7, rel=0.05)
    assert cost.predict_ms(2000) == pytest.approx(43, rel=0.05)
    assert cost.size_within(13, most=1000) == pytest.approx(500, rel=0.05)
    assert cost.size_within(2.9, most=1000) == 0


def test_of_one_size_alone_half_of_the_rows_is_taken_to_cost_half() -> None:
    cost = after([Run(1000, 10, False)] * 5)
    assert cost.predict_ms(500) == pytest.approx(5)
    assert cost.size_within(5.001, most=1000) == 500


@given(runs, st.integers(0, 3000), st.integers(0, 3000))
def test_no_prediction_is_below_zero_and_none_falls_with_the_size(past: list[Run], one: int, other: int) -> None:
    cost, (smaller, larger) = after(past), sorted((one, other))
    assert 0 <= cost.predict_ms(smaller) <= cost.predict_ms(larger)


@given(runs, st.floats(0, 20_000), st.floats(0, 20_000), st.integers(1, 2000))
def test_what_fits_grows_with_the_time_and_is_predicted_to_fit(
    past: list[Run], one_ms: float, other_ms: float, most: int
) -> None:
    cost, (less_ms, more_ms) = after(past), sorted((one_ms, other_ms))
    fitting = cost.size_within(less_ms, most=most)
    assert 0 <= fitting <= cost.size_within(more_ms, most=most) <= most
    assert fitting == 0 or cost.predict_ms(fitting) <= less_ms * (1 + 1e-9) + 1e-6
    if fitting < most and cost.predict_ms(fitting + 2) <= less_ms:
        raise AssertionError("two rows more would have fitted")


@given(runs, st.integers(1, 2000), st.floats(0.01, 0.99))
def test_whatever_was_a_stage_that_is_fast_now_is_soon_started_and_then_always(
    past: list[Run], size: int, share: float
) -> None:
    """Left for it is 100 ms; it takes less of it."""
    cost = after(past)
    waited = 0
    while not is_started(cost, size, 100):
        waited += 1
        assert waited < MOST_TRIES_APART
    cost.note(size, 100 * share)
    starts = 0
    for _ in range(200):
        if is_started(cost, size, 100):
            starts += 1
            cost.note(size, 100 * share)
    assert starts >= 190, "a past that the try did not wipe out is outlived"


def test_one_slow_run_among_fast_ones_stops_nothing() -> None:
    cost = after([Run(1000, 2, False)] * 50 + [Run(1000, 100, True)])
    assert cost.predict_ms(1000) < 50


def test_a_first_run_that_is_slow_is_tried_again_after_one_refusal_and_forgotten_when_that_is_fast() -> None:
    cost = after([Run(1000, 100, True)])
    assert [is_started(cost, 1000, 100) for _ in range(2)] == [False, True]
    cost.note(1000, 2)
    assert cost.predict_ms(1000) == pytest.approx(2)


@given(st.floats(1.01, 50), st.floats(1, 200), st.integers(1, 2000), st.booleans())
def test_what_never_ends_in_time_is_hardly_ever_started(
    times: float, left_ms: float, size: int, was_seen_whole: bool
) -> None:
    """It takes so many times of what is left; once it may have been seen to its end, when there was time."""
    cost = StageCost()
    if was_seen_whole:
        for _ in range(30):
            cost.note(size, left_ms * times)
    started: list[bool] = []
    for _ in range(1000):
        started.append(is_started(cost, size, left_ms))
        if started[-1]:
            cost.note_overrun(size, left_ms)
    assert sum(started[:200]) <= 24
    assert sum(started[200:]) <= 800 / MOST_TRIES_APART + 1


@given(runs, st.integers(1, 1000), st.floats(0.1, 100))
def test_an_overrun_never_lowers_what_is_expected(past: list[Run], size: int, given_ms: float) -> None:
    cost = after(past)
    before_ms = cost._line(size)
    cost.note_overrun(size, given_ms)
    assert cost._line(size) >= min(before_ms, given_ms) * (1 - 1e-6)


def test_only_a_try_that_ended_wipes_out_the_past() -> None:
    cost = after([Run(1000, 80, False)] * 30)
    for _ in range(10):
        assert not is_started(cost, 1000, 10)
    cost.note(1000, 80)  # of a request with more time
    assert cost.predict_ms(1000) == pytest.approx(80)
    assert [is_started(cost, 1000, 10) for _ in range(MOST_TRIES_APART)] == [False] * 16 + [True], "in a row"
