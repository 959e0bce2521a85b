"""moments: the moment of a window at which a user's list is asked for, what was known then, and what was taken after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from infra.catalog.features.nearline import plan_of
from infra.catalog.features.ranking import RECENT, Moment
from infra.contracts.candidates import Int32s
from infra.contracts.events import Record
from infra.contracts.features import Deltas, FeatureValue

Int64s = NDArray[np.int64]

PLAN = plan_of("ranking")
_HOUR_US = 3_600_000_000

LATELY_US = 4 * _HOUR_US
"""How long before a cut an event still counts in a nearline number: the longest session."""

_TRENDING = next(spec for spec in PLAN.of("item", boards=True) if spec.name == "trending_clicks")


@dataclass(frozen=True, slots=True)
class Lived:
    """What one user did shortly before a cut and in the window after it, times rising; all [n].

    times_us: int64; items: int32; grades: int32, the gain of each event; types: its name; after: bool, whether it is in the window.
    """

    times_us: Int64s
    items: Int32s
    grades: Int32s
    types: list[str]
    after: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Crowd:
    """What everybody took around a window: times_us: int64, rising, items: int32; the trending board of any moment in it."""

    times_us: Int64s
    items: Int32s

    def board(self, now_us: int) -> tuple[Int32s, Int64s]:
        """Item indices and counts, most taken first, as the stream's board had them just before that moment."""
        first_us = (now_us - _TRENDING.window_us) // _TRENDING.bucket_us * _TRENDING.bucket_us
        low, high = np.searchsorted(self.times_us, (first_us, now_us))
        items, counts = np.unique(self.items[low:high], return_counts=True)
        order = np.lexsort((items, -counts))[: _TRENDING.k]
        return items[order].astype(np.int32), counts[order].astype(np.int64)


NOBODY = Crowd(np.empty(0, np.int64), np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the past. wanted_items: int32 [w], rising, and wanted_grades: int32 [w], taken from that moment on."""

    at_us: int
    moment: Moment
    wanted_items: Int32s
    wanted_grades: Int32s


def asked_by(user_index: int, lived: Lived, *, taken: Int32s, crowd: Crowd, seed: int) -> Asked | None:
    """The request just before one of the window's events that take something new, drawn by seed and user; None where none does.

    The first of them is a request of somebody who did nothing since the cut, a later one that of a visit under way. Nothing from
    that moment on is known to it. taken: int32, not wanted anew: consumed by the cut; empty where lists include it.
    """
    new = lived.after & ~np.isin(lived.items, taken)
    first = np.zeros(len(new), np.bool_)
    first[np.unique(lived.items, return_index=True)[1]] = True
    places = np.flatnonzero(new & first)
    if not len(places):
        return None
    at_us = int(lived.times_us[np.random.default_rng((seed, user_index)).choice(places)])
    moment = known_at(at_us, lived, crowd)
    later = lived.after & (lived.times_us >= at_us)
    grades: dict[int, int] = {}
    for item, grade in zip(lived.items[later].tolist(), lived.grades[later].tolist(), strict=True):
        grades[item] = max(grade, grades.get(item, 0))
    wanted = sorted(grades)
    return Asked(at_us, moment, np.array(wanted, np.int32), np.array([grades[item] for item in wanted], np.int32))


def known_at(at_us: int, lived: Lived, crowd: Crowd) -> Moment:
    """What stream and request knew just before that moment, by the code that counts the stream."""
    known = int(np.searchsorted(lived.times_us, at_us))
    columns = (lived.times_us, lived.items, lived.types, lived.after)
    rows = list(zip(*(column[:known] for column in columns), strict=True))
    counts = _features([_record(*row[:3]) for row in rows], at_us)
    since = _features([_record(*row[:3]) for row in rows if row[3]], at_us)
    trending, trending_counts = crowd.board(at_us)
    return Moment(
        clicks_last_hour=cast(int, counts["clicks_last_hour"]),
        purchases_last_hour=cast(int, counts["purchases_last_hour"]),
        clicks_in_session=cast(int, counts["clicks_in_session"]),
        recent=np.array([int(item) for item in cast("tuple[str, ...]", since["recent_items"])[:RECENT]], np.int32),
        trending=trending,
        trending_counts=trending_counts,
        hour=at_us // _HOUR_US % 24,
    )


def _record(time_us: int, item: int, event_type: str) -> Record:
    return Record("user", "u", event_type, int(time_us), "", {"user_id": "u", "item_id": str(item)})


def _features(records: list[Record], now_us: int) -> Mapping[str, FeatureValue]:
    deltas: Deltas = {}
    PLAN.accumulate(records, deltas)
    return PLAN.features("user", deltas.get(("user", "u"), {}), now_us)
