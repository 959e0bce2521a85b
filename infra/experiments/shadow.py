"""shadow: how the lists that a shadow would have shown differ from those that were shown, for the same requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from infra.contracts.canaries import Canary
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId
from infra.experiments.judgement import Verdict, told_hours
from infra.experiments.visits import CLOCK_SKEW, GRACE, Did, Latency, VisitRule

TOP = 10
"""The length of a page."""


@dataclass(frozen=True, slots=True)
class Clicked:
    """Clicks on items of the shown lists. in_shadow: share of them that the shadow's list has as well, NaN without clicks.

    live_rank, shadow_rank: mean place of those that are in both lists, the first being 1; NaN where none is.
    """

    clicks: int
    in_shadow: float
    live_rank: float
    shadow_rank: float


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """One look at a shadow: it never goes live by itself, so it waits until its time is over.

    requests: answered for the shadow's users and long enough ago; pairs: those whose shadow list was logged too. missing: share
    of the requests without one: it failed, was given up, or its record was lost. overlap_page, overlap_all: mean share of the
    first TOP, and of all items, that the two lists have in common, of the longer one; same_first: share of pairs with the same
    first item; empty: share of the shadow's lists that have no item, empty_live of those shown. All NaN without pairs.
    """

    verdict: Verdict
    because: str
    judged_at: datetime
    requests: int
    pairs: int
    missing: float
    overlap_page: float
    overlap_all: float
    same_first: float
    empty: float
    empty_live: float
    degraded: float
    degraded_live: float
    latency: Latency
    latency_live: Latency
    clicked: Clicked

    @property
    def summary(self) -> str:
        """In a line: `overlap@10 83 % of 12,000 lists: waits`."""
        told = f"of {self.pairs:,} lists: {self.verdict.replace('_', ' ')}"
        return f"overlap@{TOP} {self.overlap_page:.0%} {told}".replace("%", " %") if self.pairs else f"no pairs {told}"


def report_shadow(
    exposures: Iterable[Exposure],
    events: Iterable[Did],
    *,
    canary: Canary,
    generation: int,
    rule: VisitRule,
    lasts: timedelta,
    now: datetime,
) -> ShadowReport:
    """Pair the lists of the shadow's generation by request id, and compare each two."""
    over = now - GRACE
    shown: dict[str, Exposure] = {}
    unseen: dict[str, Exposure] = {}
    for one in exposures:
        if one.generation == generation and one.at <= over:
            (unseen if one.arm is Arm.SHADOW else shown)[one.request_id] = one
    requests = [one for one in shown.values() if canary.takes(one.user_id)]
    pairs = [(one, unseen[one.request_id]) for one in requests if one.request_id in unseen]
    expired = now - canary.started_at >= lasts
    return ShadowReport(
        verdict=Verdict.EXPIRED if expired else Verdict.WAITS,
        because=f"{'It ran its' if expired else 'It runs for'} {told_hours(lasts)}; a shadow does not go live by itself.",
        judged_at=now,
        requests=len(requests),
        pairs=len(pairs),
        missing=_mean([one.request_id not in unseen for one in requests]),
        overlap_page=_mean([_overlap(live.items[:TOP], mine.items[:TOP]) for live, mine in pairs]),
        overlap_all=_mean([_overlap(live.items, mine.items) for live, mine in pairs]),
        same_first=_mean([live.items[:1] == mine.items[:1] for live, mine in pairs]),
        empty=_mean([not mine.items for _, mine in pairs]),
        empty_live=_mean([not live.items for live, _ in pairs]),
        degraded=_mean([mine.degraded for _, mine in pairs]),
        degraded_live=_mean([live.degraded for live, _ in pairs]),
        latency=Latency.of([mine.total_ms for _, mine in pairs]),
        latency_live=Latency.of([live.total_ms for live, _ in pairs]),
        clicked=_clicked(pairs, events, rule),
    )


def _clicked(pairs: list[tuple[Exposure, Exposure]], events: Iterable[Did], rule: VisitRule) -> Clicked:
    """Each item of a shown list counts once, however often it was clicked."""
    of_user: dict[UserId, list[int]] = {}
    for number, (live, _) in enumerate(pairs):
        of_user.setdefault(live.user_id, []).append(number)
    seen = set[tuple[int, ItemId]]()
    for event in events:
        if rule.gain(event.event_type) <= 0:
            continue
        for number in of_user.get(event.user_id, ()):
            live = pairs[number][0]
            late_s = event.logged_s - live.at.timestamp()
            in_time = -CLOCK_SKEW.total_seconds() <= late_s <= rule.length.total_seconds()
            if in_time and event.item_id in live.items:
                seen.add((number, event.item_id))
    places = [
        (pairs[number][0].items.index(item) + 1, pairs[number][1].items.index(item) + 1)
        for number, item in seen
        if item in pairs[number][1].items
    ]
    in_both = len(places)
    return Clicked(
        clicks=len(seen),
        in_shadow=in_both / len(seen) if seen else float("nan"),
        live_rank=_mean([live for live, _ in places]),
        shadow_rank=_mean([mine for _, mine in places]),
    )


def _overlap(one: tuple[ItemId, ...], other: tuple[ItemId, ...]) -> float:
    """Share of the longer one; two empty lists are alike."""
    longest = max(len(one), len(other))
    return len(set(one) & set(other)) / longest if longest else 1.0


def _mean(values: list[bool] | list[float] | list[int]) -> float:
    return float(np.mean(values)) if values else float("nan")
