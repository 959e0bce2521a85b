"""The guard: what it compares, what alarms, and how seldom it is wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import BESIDE, FlipKind, FlipRecord, Stamp, Target
from infra.experiments.confidence import one_sample
from infra.experiments.guard import GuardRules, Watch, watch, watched_flip
from infra.experiments.visits import Did
from infra.snapshots.journal import Journal
from infra.snapshots.storage import Storage
from tests.unit.infra.experiments.scenes import GENERATION, LIVE, RULE, START, TRIED, after, did, shown

RULES = GuardRules(
    watched=timedelta(hours=2), drop=0.2, alpha=0.05, users=1000, visit=replace(RULE, length=timedelta(minutes=10))
)
HOUR_S = 3600.0


def flip_of(
    generation: int = GENERATION, *, kind: FlipKind = FlipKind.FLIP, at_s: float = 0.0, first: bool = False
) -> FlipRecord:
    old, new = Target(LIVE, "o" * 64), Target(TRIED, "n" * 64)
    before = None if first else old
    since = Stamp(after(at_s), "ada", "why") if kind in BESIDE else None
    return FlipRecord(generation, kind, after(at_s), "ada", "why", before, generation - 1, (old, new), live_since=since)


def traffic(
    rng: np.random.Generator,
    users: int,
    *,
    clicks: tuple[float, float] = (0.3, 0.3),
    slow: tuple[float, float] = (0.0, 0.0),
) -> tuple[list[Exposure], list[Did]]:
    """That many users in the hour before the flip, and others in the hour after it, one list each; chances (before, after)."""
    exposures, events = [], []
    for side, (begins_s, version, generation) in enumerate(((-HOUR_S, LIVE, GENERATION - 1), (0.0, TRIED, GENERATION))):
        for number in range(users):
            user, at_s = f"{side}-{number}", begins_s + HOUR_S * (number + 0.5) / users
            ms = 500.0 if rng.random() < slow[side] else 10.0
            exposures.append(shown(user, at_s, version=version, generation=generation, total_ms=ms))
            if rng.random() < clicks[side]:
                events.append(did(user, at_s + 1))
    return exposures, events


def seen(exposures: list[Exposure], events: list[Did], *, now_s: float = HOUR_S) -> Watch:
    return watch(exposures, events, flip=flip_of(), rules=RULES, now=after(now_s))


def test_as_before_is_quiet() -> None:
    found = seen(*traffic(np.random.default_rng(1), 3000))
    assert not found.alarm
    assert found.because == "Nothing has surely fallen since v2 went live, of 2,492 users after and 2,492 before."


def test_a_tank_alarms_and_is_named() -> None:
    found = seen(*traffic(np.random.default_rng(2), 1500, clicks=(0.3, 0.05)))
    assert found.alarm and [metric.name for metric in found.metrics if metric.fell] == ["click_through"]
    assert found.because.startswith(
        "Surely fallen since v2 went live, of 1,246 users after and 1,246 before: click-through 3"
    )


def test_a_fall_within_the_allowed_does_not_alarm() -> None:
    assert not seen(*traffic(np.random.default_rng(3), 20_000, clicks=(0.3, 0.26))).alarm


def test_slow_answers_alarm_where_they_are_five_points_more() -> None:
    rng = np.random.default_rng(4)
    slower = seen(*traffic(rng, 3000, slow=(0.02, 0.3)))
    assert slower.alarm and [metric.name for metric in slower.metrics if metric.fell] == ["slow"]
    assert not seen(*traffic(rng, 3000, slow=(0.02, 0.05))).alarm


def test_fewer_than_fifty_users_before_alarm_nothing() -> None:
    exposures, events = traffic(np.random.default_rng(5), 3000, clicks=(0.3, 0.0))
    after_only = [one for one in exposures if one.at >= START]
    found = seen(after_only, events)
    assert not found.alarm and found.users_before == 0


def test_those_before_had_ended_their_visit_and_came_as_long_ago_as_the_flip_is() -> None:
    lists = [
        shown("long ago", -1801, generation=6),
        shown("in time", -1799, generation=6),
        shown("still there", -599, generation=6),
        shown("of another", -1000, version=VersionName("v0"), generation=5),
        shown("canary", -1000, arm=Arm.CANARY, version=LIVE, generation=6),
        shown("after", 5, version=TRIED),
        shown("late reader", 5, version=LIVE, generation=6),
        shown("with a canary since", 9, version=TRIED, generation=GENERATION + 1),
        shown("not over", 1300, version=TRIED),
    ]
    found = seen(lists, [], now_s=1800)
    assert (found.users_before, found.users_after) == (1, 2)


def test_equal_before_and_after_alarms_no_oftener_than_stated() -> None:
    """Rare conversions alone: every kind of visit of a small service, at its last look."""
    rng = np.random.default_rng(6)
    alarms = sum(seen(*traffic(rng, 240, clicks=(0.02, 0.02))).alarm for _ in range(100))
    assert alarms <= 5


def test_each_of_the_eight_intervals_has_an_eighth_of_alpha() -> None:
    found = seen(*traffic(np.random.default_rng(7), 600))
    clicks = found.metrics[0]
    n = found.users_before
    values = (np.arange(n) < round(clicks.before_mean * n)).astype(np.float64)
    path = one_sample(values, alpha=0.05 / 8, tuned_for=1000)
    assert (clicks.before_low, clicks.before_high) == pytest.approx((path.low[-1], path.high[-1]))


def test_the_watched_flip_is_the_one_by_which_the_live_version_went_live(tmp_path: Path) -> None:
    journal = Journal(Storage(str(tmp_path / "journal")))

    def found(now_s: float = 60.0) -> int | None:
        record = watched_flip(journal, watched=RULES.watched, now=after(now_s))
        return record.generation if record else None

    assert found() is None
    journal.append(flip_of(1, first=True))
    assert found() is None
    journal.append(flip_of(2))
    assert found() == 2
    journal.append(flip_of(3, kind=FlipKind.CANARY))
    journal.append(flip_of(4, kind=FlipKind.CANARY_END))
    assert (found(), found(2 * HOUR_S), found(2 * HOUR_S + 1)) == (2, 2, None)
    journal.append(flip_of(5))
    journal.void(5, actor="t", reason="gone")
    assert found() == 2
    journal.append(flip_of(6, kind=FlipKind.ROLLBACK))
    assert found() is None


@pytest.mark.parametrize("hours", [0.0])
def test_zero_hours_watch_nothing(tmp_path: Path, hours: float) -> None:
    journal = Journal(Storage(str(tmp_path / "journal")))
    journal.append(flip_of(2))
    assert watched_flip(journal, watched=timedelta(hours=hours), now=after(0.001)) is None
