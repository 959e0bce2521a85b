"""visits: what each user's first visit in an experiment came to, from the lists that were shown and what users did with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.canaries import Canary
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId
from infra.experiments.confidence import Bools, Float64s

GRACE = timedelta(seconds=10)
"""After a visit's end, until all of it is in the logs."""

CLOCK_SKEW = timedelta(seconds=5)
"""An event may have been logged this long before the list that it belongs to: the service's clock is not the log's."""


_LATELY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Did:
    """What a user did with an item (empty: with none). logged_s: when the log took it, Unix seconds by the log's clock."""

    logged_s: float
    user_id: UserId
    item_id: ItemId
    event_type: str


@dataclass(frozen=True, slots=True)
class VisitRule:
    """What a visit is. length: from a user's first list on; slow_ms: a list that took longer was slow.

    gain: of an event type, above 0 for what counts as a click; conversions: the event types that are what the service is for.
    """

    length: timedelta
    slow_ms: float
    gain: Callable[[str], int]
    conversions: frozenset[str]

    @classmethod
    def of(cls, spec: ApplicationSpec, length: timedelta) -> VisitRule:
        """An application's."""
        return cls(length, spec.slow_ms, spec.gain, spec.conversions)


@dataclass(frozen=True, slots=True)
class Latency:
    """From the request's arrival to its list; NaN without lists."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Latency:
        """Of those lists."""
        if not times_ms:
            return cls(math.nan, math.nan)
        p50, p99 = np.percentile(times_ms, (50, 99))
        return cls(float(p50), float(p99))


@dataclass(frozen=True, slots=True)
class Visits:
    """One row a user whose visit is over, in the order of the first lists; the first seven are arrays [n].

    treated: in the canary's share. first_seen_s: Unix seconds of the first list. click_through: share of the visit's lists of
    which an item was clicked; conversion: 1 where any shown item was converted, else 0; slow, degraded: shares of the visit's
    lists. unserved: share of a treated user's lists that the live snapshot had to answer.
    pending: users whose visit is not over. misassigned: lists that say another arm than the canary's bucket of their user: a
    bug where there are any. unserved_lately: as unserved, of all lists of treated users in the newest ten minutes, whether
    their visits are over or not; 0 where there is none. latency_live, latency_canary: of all lists of either side.
    """

    treated: Bools
    first_seen_s: Float64s
    click_through: Float64s
    conversion: Float64s
    slow: Float64s
    degraded: Float64s
    unserved: Float64s
    pending: int
    misassigned: int
    unserved_lately: float = 0.0
    latency_live: Latency = Latency(math.nan, math.nan)
    latency_canary: Latency = Latency(math.nan, math.nan)

    def __len__(self) -> int:
        return len(self.treated)


def canary_visits(
    exposures: Iterable[Exposure],
    events: Iterable[Did],
    *,
    canary: Canary,
    generation: int,
    rule: VisitRule,
    now: datetime,
) -> Visits:
    """The visits in a canary's generation, of both sides. A list's side is its user's bucket, whatever the list was from.

    Users in the middle of a visit when the canary began are left out, on both sides alike: what they do may follow from lists
    of before, which the live side's lists resemble more.
    """
    takes: dict[UserId, bool] = {}
    before_s: dict[UserId, float] = {}
    first_s: dict[UserId, float] = {}
    lists: list[Exposure] = []
    misassigned = 0
    for shown in exposures:
        user, at_s = shown.user_id, shown.at.timestamp()
        if shown.generation < generation and shown.arm is not Arm.SHADOW:
            before_s[user] = max(at_s, before_s.get(user, at_s))
        if shown.generation != generation or shown.arm is Arm.SHADOW:
            continue
        first_s[user] = min(at_s, first_s.get(user, at_s))
        if user not in takes:
            takes[user] = canary.takes(user)
        misassigned += takes[user] != (shown.arm is Arm.CANARY)
        lists.append(shown)
    length_s = rule.length.total_seconds()
    fresh = [one for one in lists if first_s[one.user_id] - before_s.get(one.user_id, -math.inf) > length_s]
    visits = _visits(
        fresh,
        events,
        rule=rule,
        now=now,
        treated=lambda user: takes[user],
        unserved=lambda shown: takes[shown.user_id] and shown.version != canary.version,
        misassigned=misassigned,
    )
    lately = [shown.version != canary.version for shown in lists if takes[shown.user_id] and shown.at >= now - _LATELY]
    return replace(
        visits,
        unserved_lately=sum(lately) / len(lately) if lately else 0.0,
        latency_live=Latency.of([shown.total_ms for shown in lists if not takes[shown.user_id]]),
        latency_canary=Latency.of([shown.total_ms for shown in lists if takes[shown.user_id]]),
    )


def live_visits(lists: Iterable[Exposure], events: Iterable[Did], *, rule: VisitRule, now: datetime) -> Visits:
    """The visits that those lists of the live arm make up, nobody treated; those over by `now` count."""
    chosen = [shown for shown in lists if shown.arm is Arm.LIVE]
    return _visits(
        chosen, events, rule=rule, now=now, treated=lambda user: False, unserved=lambda shown: False, misassigned=0
    )


def _visits(
    lists: list[Exposure],
    events: Iterable[Did],
    *,
    rule: VisitRule,
    now: datetime,
    treated: Callable[[UserId], bool],
    unserved: Callable[[Exposure], bool],
    misassigned: int,
) -> Visits:
    lists.sort(key=lambda shown: shown.at)
    length_s, over_s = rule.length.total_seconds(), (now - GRACE).timestamp()
    began_s: dict[UserId, float] = {}
    shown_to: dict[UserId, list[tuple[float, Exposure, int]]] = {}
    row_of: dict[UserId, int] = {}
    pending = set[UserId]()
    rows: list[int] = []
    measured: list[tuple[bool, bool, bool]] = []
    for shown in lists:
        at_s, user = shown.at.timestamp(), shown.user_id
        began = began_s.setdefault(user, at_s)
        if at_s > began + length_s:
            continue
        if began + length_s > over_s:
            pending.add(user)
            continue
        row = row_of.setdefault(user, len(row_of))
        shown_to.setdefault(user, []).append((at_s, shown, len(rows)))
        rows.append(row)
        measured.append((shown.total_ms > rule.slow_ms, shown.degraded, unserved(shown)))
    clicked, converted = np.zeros(len(rows), np.bool_), np.zeros(len(row_of), np.float64)
    skew_s = CLOCK_SKEW.total_seconds()
    for event in events:
        mine = shown_to.get(event.user_id)
        if mine is None:
            continue
        clicks, converts = rule.gain(event.event_type) > 0, event.event_type in rule.conversions
        if not (clicks or converts) or event.logged_s > mine[0][0] + length_s:
            continue
        for at_s, shown, number in mine:
            if event.logged_s >= at_s - skew_s and event.item_id in shown.items:
                clicked[number] |= clicks
                if converts:
                    converted[row_of[event.user_id]] = 1.0
    row_numbers, users = np.array(rows, np.int64), list(row_of)
    lists_of = np.bincount(row_numbers, minlength=len(users)).astype(np.float64)

    def share(flags: Bools) -> Float64s:
        return np.bincount(row_numbers, weights=flags.astype(np.float64), minlength=len(users)) / lists_of

    slow, degraded, missed = np.array(measured, np.bool_).reshape(-1, 3).T
    return Visits(
        treated=np.array([treated(user) for user in users], np.bool_),
        first_seen_s=np.array([began_s[user] for user in users], np.float64),
        click_through=share(clicked),
        conversion=converted,
        slow=share(slow),
        degraded=share(degraded),
        unserved=share(missed),
        pending=len(pending),
        misassigned=misassigned,
    )
