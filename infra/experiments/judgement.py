"""judgement: what the visits of an experiment say of the canary: roll it back, wait, promote it, or end it undecided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np

from infra.catalog.applications.spec import ApplicationSpec
from infra.config.settings import Settings
from infra.contracts.canaries import Canary
from infra.experiments.confidence import AT_LEAST, Bools, Float64s, Path, difference
from infra.experiments.mismatch import VOID_AT, mismatch_e_values
from infra.experiments.visits import Latency, VisitRule, Visits

SLOWER_BY = 0.01
"""A canary may have this much more of its lists slow, or degraded, and still go live; a share of lists."""

LEAST_MARGIN = 0.002
"""Of clicks and conversions, where they are so rare that a share of them could not be made out."""

SETTLE = timedelta(minutes=2)
"""Services need a while to load a canary: who came earlier is not held against it."""

UNSERVED_AT_MOST = 0.05
"""Above this share of its lists answered by the live snapshot, the canary cannot be said to have been tried."""

_POINTS = 160


class Verdict(StrEnum):
    """What became, or is to become, of a canary."""

    WAITS = "waits"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    EXPIRED = "expired"
    """Its time was over before it was decided: ended, and not live."""
    ENDED = "ended"
    """By hand."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a visit. better: 1 where more is better, -1 where less is; name: of the column of `Visits`."""

    name: str
    title: str
    better: int


METRICS = (
    Metric("click_through", "click-through", 1),
    Metric("conversion", "conversion", 1),
    Metric("slow", "slow lists", -1),
    Metric("degraded", "degraded lists", -1),
)


_TOLERATED = {"click_through": "tolerance", "conversion": "conversion_tolerance"}


@dataclass(frozen=True, slots=True)
class Rules:
    """When a canary is decided. alpha: the chance, over all metrics, that one as good as the live snapshot is rolled back.

    tolerance, conversion_tolerance: the share of the live mean by which clicks, and conversions, must surely not be lower.
    users: wanted on either side before it goes live. lasts: after that it is ended.
    """

    alpha: float
    tolerance: float
    conversion_tolerance: float
    users: int
    lasts: timedelta
    visit: VisitRule

    @classmethod
    def of(cls, chosen: Settings, spec: ApplicationSpec, *, hours: float | None = None) -> Rules:
        """By the settings; hours: in place of the setting."""
        return cls(
            alpha=chosen.canary_alpha,
            tolerance=chosen.canary_tolerance,
            conversion_tolerance=chosen.canary_conversion_tolerance,
            users=chosen.canary_users,
            lasts=timedelta(hours=hours or chosen.canary_hours),
            visit=VisitRule.of(spec, timedelta(minutes=chosen.visit_minutes)),
        )

    @property
    def metric_alpha(self) -> float:
        """Of each metric's interval, two-sided: twice an even share of alpha, as only an error on the bad side rolls back.

        By symmetry an interval errs there half as often, and over all metrics at most alpha. That a canary at its margin goes
        live wants an error on the good side in each metric that is at it: no likelier than half of this.
        """
        return 2.0 * self.alpha / len(METRICS)

    def margin(self, name: str, live: float) -> float:
        """The difference from the live mean at which a canary is no longer good enough in that metric."""
        if name not in _TOLERATED:
            return SLOWER_BY
        return -max(getattr(self, _TOLERATED[name]) * (live if np.isfinite(live) else 0.0), LEAST_MARGIN)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The path of one metric's interval at up to 160 numbers of users, for a picture."""

    users: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of both sides. live_mean, canary_mean: NaN without users.

    difference: canary less live, as the sequence estimates it, within low and high (infinite where users are too few); close to
    the difference of the means and not the same. margin: the difference at which the canary is no longer good enough to go live.
    """

    name: str
    title: str
    better: int
    live_mean: float
    canary_mean: float
    difference: float
    low: float
    high: float
    margin: float
    path: Drawn

    @property
    def surely_worse(self) -> bool:
        """The whole interval is on the bad side of 0."""
        return self.high < 0 if self.better > 0 else self.low > 0

    @property
    def surely_good_enough(self) -> bool:
        """The whole interval is on the good side of the margin."""
        return self.low >= self.margin if self.better > 0 else self.high <= self.margin


@dataclass(frozen=True, slots=True)
class Judgement:
    """One look at a canary. because: one sentence. unserved: share of the canary's lists that the live snapshot had to answer.

    mismatch: the largest e-value so far against the split having been as meant.
    """

    verdict: Verdict
    because: str
    judged_at: datetime
    metrics: tuple[Compared, ...]
    live_users: int
    canary_users: int
    pending: int
    unserved: float
    misassigned: int
    mismatch: float
    latency_live: Latency
    latency_canary: Latency

    @property
    def summary(self) -> str:
        """In a line: `click-through -1.2 % [-3.0, +0.5] of 2,310 users: waits`, in per cent of the live mean."""
        told = f"of {self.live_users + self.canary_users:,} users: {self.verdict.replace('_', ' ')}"
        clicks = self.metrics[0]
        if not (np.isfinite(clicks.low) and clicks.live_mean > 0):
            return f"{clicks.title} not known yet, {told}"
        mean, low, high = (100 * value / clicks.live_mean for value in (clicks.difference, clicks.low, clicks.high))
        return f"{clicks.title} {mean:+.1f} % [{low:+.1f}, {high:+.1f}] {told}"


def judge(visits: Visits, canary: Canary, rules: Rules, now: datetime) -> Judgement:
    """One look. It may be repeated at any number of users without making an error likelier."""
    compared = tuple(_compare(visits, metric, canary, rules) for metric in METRICS)
    e_values = mismatch_e_values(visits.treated, share=canary.fraction)
    mismatch = float(np.max(e_values, initial=1.0))
    verdict, because = _decide(visits, compared, canary, rules, now, mismatch=mismatch)
    return Judgement(
        verdict=verdict,
        because=because,
        judged_at=now,
        metrics=compared,
        live_users=int(np.count_nonzero(~visits.treated)),
        canary_users=int(np.count_nonzero(visits.treated)),
        pending=visits.pending,
        unserved=_mean(visits.unserved[visits.treated]),
        misassigned=visits.misassigned,
        mismatch=mismatch,
        latency_live=visits.latency_live,
        latency_canary=visits.latency_canary,
    )


def _decide(
    visits: Visits,
    compared: tuple[Compared, ...],
    canary: Canary,
    rules: Rules,
    now: datetime,
    *,
    mismatch: float,
) -> tuple[Verdict, str]:
    n_canary = int(np.count_nonzero(visits.treated))
    n_live = len(visits) - n_canary
    settled = visits.unserved[visits.treated & (visits.first_seen_s >= (canary.started_at + SETTLE).timestamp())]
    unserved = _mean(settled) if len(settled) else 0.0
    if len(settled) >= AT_LEAST and min(unserved, visits.unserved_lately) > 0.5:
        return Verdict.ROLLED_BACK, (
            f"{unserved:.0%} of the lists of {len(settled):,} users of the canary were answered by the live snapshot: "
            f"services cannot serve {canary.version}."
        )
    void = ""
    if mismatch >= VOID_AT:
        meant = canary.fraction * len(visits)
        void = f"{n_canary:,} of {len(visits):,} users were the canary's where {meant:,.0f} were meant"
        if n_canary < meant:
            return Verdict.ROLLED_BACK, f"{void}: lists of {canary.version} do not reach its users."
    elif visits.misassigned:
        void = f"{visits.misassigned:,} lists were logged for another side than their user's"
    worse = [metric for metric in compared if metric.surely_worse]
    if worse and not void:
        return Verdict.ROLLED_BACK, f"Surely worse than the live snapshot: {', '.join(map(_told, worse))}."
    short = min(n_canary, n_live) < rules.users
    doubtful = [metric for metric in compared if not metric.surely_good_enough]
    if not (void or short or doubtful or unserved > UNSERVED_AT_MOST):
        return Verdict.PROMOTED, (
            f"Surely no worse than the live snapshot by more than the margin in all {len(compared)} metrics, "
            f"of {n_canary:,} users and {n_live:,} beside them."
        )
    if void:
        why = f"The comparison is void: {void}."
    elif short:
        why = f"{n_canary:,} users of the canary and {n_live:,} beside them; wanted {rules.users:,} on either side."
    elif unserved > UNSERVED_AT_MOST:
        why = f"{unserved:.0%} of the canary's lists were answered by the live snapshot; wanted {UNSERVED_AT_MOST:.0%} at most."
    else:
        why = f"Neither surely worse nor surely good enough yet: {', '.join(metric.title for metric in doubtful)}."
    if now - canary.started_at >= rules.lasts:
        return Verdict.EXPIRED, f"Not decided within {told_hours(rules.lasts)}. {why}"
    return Verdict.WAITS, why


def told_hours(lasts: timedelta) -> str:
    """`24 hours`."""
    return f"{lasts / timedelta(hours=1):g} hours"


def _compare(visits: Visits, metric: Metric, canary: Canary, rules: Rules) -> Compared:
    values, treated = column(visits, metric), visits.treated
    share, live = canary.fraction, _mean(values[~treated])
    path = difference(
        values, treated, share=share, alpha=rules.metric_alpha, tuned_for=rules.users / min(share, 1.0 - share)
    )
    last = (float(part[-1]) if len(part) else limit for part, limit in _limits(path))
    mean, low, high = last
    return Compared(
        name=metric.name,
        title=metric.title,
        better=metric.better,
        live_mean=live,
        canary_mean=_mean(values[treated]),
        difference=mean,
        low=low,
        high=high,
        margin=rules.margin(metric.name, live),
        path=_thinned(path),
    )


def column(visits: Visits, metric: Metric) -> Float64s:
    """A metric's column."""
    columns = {
        "click_through": visits.click_through,
        "conversion": visits.conversion,
        "slow": visits.slow,
        "degraded": visits.degraded,
    }
    return columns[metric.name]


def _limits(path: Path) -> tuple[tuple[Float64s, float], ...]:
    return (path.mean, 0.0), (path.low, -np.inf), (path.high, np.inf)


def _thinned(path: Path) -> Drawn:
    known: Bools = np.isfinite(path.low)
    at = np.flatnonzero(known)
    if len(at) > _POINTS:
        at = at[np.unique(np.linspace(0, len(at) - 1, _POINTS).astype(np.int64))]
    users = tuple((at + 1).tolist())
    return Drawn(users, tuple(path.mean[at].tolist()), tuple(path.low[at].tolist()), tuple(path.high[at].tolist()))


def _mean(values: Float64s) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _told(metric: Compared) -> str:
    def figure(value: float) -> str:
        return f"{100 * value:+.2f}"

    return (
        f"{metric.title} {figure(metric.difference)} [{figure(metric.low)}, {figure(metric.high)}] percentage points "
        f"from {metric.live_mean:.2%}"
    )
