"""guard: whether what went live made things fall, by the visits after it against those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from infra.catalog.applications.spec import ApplicationSpec
from infra.config.settings import Settings
from infra.contracts.exposures import Exposure
from infra.contracts.snapshots import FlipKind, FlipRecord
from infra.experiments.confidence import Float64s, one_sample
from infra.experiments.judgement import METRICS, Metric, column
from infra.experiments.visits import Did, VisitRule, Visits, live_visits
from infra.snapshots.journal import Journal

SLOWER_BY = 0.05
"""More slow or degraded lists than before by surely more than this share alarm."""

_LOOKED_BACK = 200
"""Records of the journal: canaries that began and ended since the flip stand before it."""


@dataclass(frozen=True, slots=True)
class GuardRules:
    """watched: how long after the flip; drop: the fall that alarms, as a share of what was before; alpha: of a false alarm."""

    watched: timedelta
    drop: float
    alpha: float
    users: int
    visit: VisitRule

    @classmethod
    def of(cls, chosen: Settings, spec: ApplicationSpec) -> GuardRules:
        """By the settings."""
        return cls(
            watched=timedelta(hours=chosen.guard_hours),
            drop=chosen.guard_drop,
            alpha=chosen.canary_alpha,
            users=chosen.canary_users,
            visit=VisitRule.of(spec, timedelta(minutes=chosen.visit_minutes)),
        )

    @property
    def interval_alpha(self) -> float:
        """Each metric has two intervals, and any one may err."""
        return self.alpha / (2 * len(METRICS))


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """One metric's interval of means before and after; infinite where users are too few. fell: surely by more than the limit."""

    name: str
    title: str
    before_mean: float
    before_low: float
    before_high: float
    after_mean: float
    after_low: float
    after_high: float
    fell: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """One look at what went live. because: one sentence."""

    alarm: bool
    because: str
    metrics: tuple[BeforeAfter, ...]
    users_before: int
    users_after: int


def watched_flip(journal: Journal, *, watched: timedelta, now: datetime) -> FlipRecord | None:
    """The flip by which what is live went live, where it is young enough, is no way back itself, and went from something else."""
    for record, void in journal.newest(_LOOKED_BACK):
        if void is not None or record.live_since is not None:
            continue
        young = now - record.at <= watched
        return record if record.kind is FlipKind.FLIP and record.before is not None and young else None
    return None


def watch(
    exposures: Sequence[Exposure], events: Sequence[Did], *, flip: FlipRecord, rules: GuardRules, now: datetime
) -> Watch:
    """Compare the visits since the flip with those that ended before it, as long back as it is ago.

    Those before are taken from the flip backwards, so that a later look sees more of them. At the far edge visits are cut short
    or begin anew: there the intervals are approximate, which a fall by more than `drop` outweighs.
    """
    begins = flip.at - min(now - flip.at, rules.watched)
    live, was = flip.target.version, flip.before.version if flip.before else None
    before = live_visits(
        (shown for shown in exposures if begins <= shown.at < flip.at and shown.version == was),
        events,
        rule=rules.visit,
        now=flip.at,
    )
    after = live_visits(
        (shown for shown in exposures if shown.generation >= flip.generation and shown.version == live),
        events,
        rule=rules.visit,
        now=now,
    )
    metrics = tuple(_compare(metric, before, after, rules) for metric in METRICS)
    fell = [metric for metric in metrics if metric.fell]
    since = f"since {live} went live, of {len(after):,} users after and {len(before):,} before"
    told = ", ".join(map(_told, fell))
    because = f"Surely fallen {since}: {told}." if fell else f"Nothing has surely fallen {since}."
    return Watch(bool(fell), because, metrics, len(before), len(after))


def _compare(metric: Metric, before: Visits, after: Visits, rules: GuardRules) -> BeforeAfter:
    old, new = (_interval(column(visits, metric), rules) for visits in (before, after))
    fewer, more = new[2] < (1.0 - rules.drop) * old[1], new[1] > old[2] + SLOWER_BY
    return BeforeAfter(metric.name, metric.title, *old, *new, fell=fewer if metric.better > 0 else more)


def _interval(values: Float64s, rules: GuardRules) -> tuple[float, float, float]:
    """(mean, low, high) after the last value."""
    if not len(values):
        return float("nan"), -np.inf, np.inf
    path = one_sample(values, alpha=rules.interval_alpha, tuned_for=rules.users)
    return float(path.mean[-1]), float(path.low[-1]), float(path.high[-1])


def _told(metric: BeforeAfter) -> str:
    return f"{metric.title} {metric.before_mean:.2%} before, {metric.after_mean:.2%} after"
