"""A request of the past: drawn by seed and user, and blind to all that comes from its moment on."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.training.moments import NOBODY, Asked, Crowd, Lived, asked_by, known_at

MINUTE_US = 60_000_000
CUT_US = 1_717_200_000_000_000  # 2024-06-01 00:00 UTC


def lived(*did: tuple[float, int, str], before: int = 0) -> Lived:
    """(minutes after the cut, item, type), the first `before` of them before the window."""
    grade = {"click": 1, "rating": 1, "purchase": 2}
    return Lived(
        times_us=np.array([CUT_US + round(at * MINUTE_US) for at, _, _ in did], np.int64),
        items=np.array([item for _, item, _ in did], np.int32),
        grades=np.array([grade[kind] for _, _, kind in did], np.int32),
        types=[kind for _, _, kind in did],
        after=np.arange(len(did)) >= before,
    )


VISIT = lived(
    (-20, 1, "click"), (600, 2, "click"), (601, 3, "click"), (602, 3, "purchase"), (700, 4, "click"), before=1
)
NONE = np.empty(0, np.int32)


def asked(user: int, *, of: Lived = VISIT, taken: np.ndarray = NONE, crowd: Crowd = NOBODY) -> Asked:
    found = asked_by(user, of, taken=taken.astype(np.int32), crowd=crowd, seed=1)
    assert found is not None
    return found


def test_moments_stand_before_each_new_item_and_over_users_all_of_them_occur() -> None:
    taken = np.array([1])
    found = {round((asked(user, taken=taken).at_us - CUT_US) / MINUTE_US) for user in range(60)}
    assert found == {600, 601, 700}, "the purchase takes nothing new"
    assert asked(5, taken=taken).at_us == asked(5, taken=taken).at_us


def test_what_came_before_is_known_and_what_comes_then_is_wanted_by_its_highest_grade() -> None:
    cold, warm = known_at(CUT_US + 600 * MINUTE_US, VISIT, NOBODY), known_at(CUT_US + 602 * MINUTE_US, VISIT, NOBODY)
    assert (cold.clicks_last_hour, cold.clicks_in_session, cold.recent.tolist(), cold.hour) == (0, 0, [], 10)
    assert (warm.clicks_last_hour, warm.clicks_in_session, warm.recent.tolist()) == (2, 2, [3, 2])
    later = known_at(CUT_US + 603 * MINUTE_US, VISIT, NOBODY)
    assert (later.purchases_last_hour, later.recent.tolist()) == (1, [3, 2])
    first = next(one for one in (asked(user, taken=np.array([1])) for user in range(60)) if one.moment.recent.size == 0)
    assert first.wanted_items.tolist() == [2, 3, 4] and first.wanted_grades.tolist() == [1, 2, 1]


def test_what_happened_shortly_before_the_cut_counts_but_is_no_recent_item() -> None:
    moment = known_at(CUT_US + 10 * MINUTE_US, VISIT, NOBODY)
    assert moment.clicks_last_hour == 1 and moment.recent.tolist() == []


def test_who_takes_nothing_new_asks_nothing() -> None:
    again = lived((10, 1, "click"), (20, 1, "click"))
    assert asked_by(3, again, taken=np.array([1], np.int32), crowd=NOBODY, seed=1) is None


def test_the_board_counts_the_last_hour_and_nothing_from_the_moment_on() -> None:
    minutes = np.array([-80, -50, -10, -10, 5, 10])
    crowd = Crowd(CUT_US + minutes.astype(np.int64) * MINUTE_US, np.array([9, 8, 7, 7, 8, 6], np.int32))
    items, counts = crowd.board(CUT_US + 10 * MINUTE_US)
    assert items.tolist() == [7, 8] and counts.tolist() == [2, 2], "the one at the moment itself is not known"
    items, counts = crowd.board(CUT_US + 4 * MINUTE_US)
    assert dict(zip(items.tolist(), counts.tolist(), strict=True)) == {7: 2, 8: 1}


@given(st.integers(0, 2**31), st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 12)), min_size=2, max_size=15))
def test_another_future_changes_nothing_that_is_known_at_the_moment(seed: int, did: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(seed)
    one = lived(*sorted((minute, item, "click") for minute, item in did))
    at_us = int(rng.choice(one.times_us))
    late = one.times_us >= at_us
    other = dataclasses.replace(
        one,
        items=np.where(late, rng.integers(0, 50, len(late)), one.items).astype(np.int32),
        types=["purchase" if is_late else kind for is_late, kind in zip(late, one.types, strict=True)],
    )
    crowds = [Crowd(person.times_us, person.items) for person in (one, other)]
    left, right = known_at(at_us, one, crowds[0]), known_at(at_us, other, crowds[1])
    for field in dataclasses.fields(left):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))
