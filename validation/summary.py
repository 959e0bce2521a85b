"""summary: one row a user of what her list looks like, for the row-wise checks; never the exploded table."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.contracts.candidates import Int32s
from validation.consumption import Consumption
from validation.lists import PAD, Int64s, Lists

_INFINITE = np.uint16(0x7C00)
_MAGNITUDE = np.uint16(0x7FFF)
"""float16: above _INFINITE without the sign bit is NaN; for non-negative numbers the bits rise with the value."""

_SUMS = (
    "n_duplicates",
    "n_outside_catalogue",
    "n_history_outside",
    "n_seen",
    "n_consumed_wrong",
    "n_nan",
    "n_infinite",
    "n_negative",
    "n_unordered",
    "n_torn",
    "n_infinite_features",
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a list must be measured against."""

    n_items: int
    candidates_per_user: int
    include_seen: bool
    consumption: Consumption

    def wanted_length(self, user_index: Int32s) -> Int64s:
        """min(K, items that the user may be shown): the catalogue without what she consumed, unless that is included."""
        eligible = np.full(len(user_index), self.n_items, np.int64)
        if not self.include_seen:
            eligible -= self.consumption.counts(user_index)
        return np.clip(eligible, 0, self.candidates_per_user)


@dataclass(slots=True)
class SummaryBuilder:
    """Takes lists in any order, a few thousand at a time, and gives the table at the end."""

    expectation: Expectation
    _parts: list[dict[str, NDArray[np.generic]]] = field(default_factory=list)

    def add(self, lists: Lists) -> None:
        """Count what is wrong with each list."""
        sums, tops, means = _scores(lists)
        self._parts.append(
            {
                "user_index": lists.user_index,
                "user_id": np.array(lists.user_id, object),
                "length": lists.n_items,
                "top_score": tops,
                "mean_score": means,
                "n_torn": lists.torn,
                "n_infinite_features": np.count_nonzero(np.isinf(lists.features), axis=1),
                "n_history_outside": self._history_outside(lists),
                "n_consumed_wrong": self._consumed_wrong(lists),
                **self._items(lists),
                **sums,
            }
        )

    def _history_outside(self, lists: Lists) -> Int64s:
        row = np.repeat(np.arange(len(lists)), lists.n_history)
        outside = (lists.history < 0) | (lists.history >= self.expectation.n_items)
        return np.bincount(row[outside], minlength=len(lists))

    def _consumed_wrong(self, lists: Lists) -> Int64s:
        """Items that a row says were consumed and the dataset does not, or the reverse, or that it says twice."""
        mine = (np.repeat(np.arange(len(lists)), lists.n_consumed) << 32) + lists.consumed.view(np.uint32)
        theirs = np.zeros(0, np.int64)
        if not self.expectation.include_seen:
            row, item = self.expectation.consumption.of(lists.user_index)
            theirs = (row << 32) + item
        distinct, counts = np.unique(mine, return_counts=True)
        wrong = np.concatenate([np.setxor1d(distinct, theirs), np.repeat(distinct, counts - 1)])
        return np.bincount(wrong >> 32, minlength=len(lists))

    def _items(self, lists: Lists) -> dict[str, NDArray[np.generic]]:
        wanted = self.expectation
        outside = (lists.items < 0) | (lists.items >= wanted.n_items)
        if not lists.full:
            outside &= lists.filled()
        ordered = np.sort(lists.items, axis=1)
        repeats = np.count_nonzero(ordered[:, 1:] == ordered[:, :-1], axis=1)
        if not lists.full:  # the padding repeats itself, and looks like an item of the same number
            pads = lists.items.shape[1] - lists.n_items
            alike = np.count_nonzero((lists.items == PAD) & lists.filled(), axis=1)
            repeats = repeats - np.maximum(pads + alike - 1, 0) + np.maximum(alike - 1, 0)
        n_seen = np.zeros(len(lists), np.int64)
        if not wanted.include_seen:
            row, item = wanted.consumption.of(lists.user_index)
            keys = (np.arange(len(lists), dtype=np.int64)[:, None] << 32) + ordered
            flat, consumed = keys.ravel(), (row << 32) + item
            found = np.searchsorted(flat, consumed, "right") - np.searchsorted(flat, consumed, "left")
            n_seen = np.bincount(row, weights=found, minlength=len(lists)).astype(np.int64)
        return {
            "n_outside_catalogue": np.count_nonzero(outside, axis=1),
            "n_duplicates": repeats,
            "n_seen": n_seen,
        }

    def table(self) -> pd.DataFrame:
        """One row a user who is expected or has a list, by user index.

        A user's defects are summed over all her lists (n_lists says how many; 0: none), her length is that of the shortest.
        """
        wanted = self.expectation
        columns = {
            name: np.concatenate([part[name] for part in self._parts])
            for name in (self._parts[0] if self._parts else {})
        } or _no_lists()
        order = np.argsort(columns["user_index"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
        listed, starts = np.unique(columns["user_index"], return_index=True)
        users = np.union1d(listed, wanted.consumption.users).astype(np.int32)
        at = np.searchsorted(users, listed)

        def spread(values: NDArray[np.generic], fill: object = 0) -> NDArray[np.generic]:
            out = np.full(len(users), fill, values.dtype)
            out[at] = values
            return out

        counts = np.diff(np.append(starts, len(order)))
        table = {
            "user_index": users,
            "user_id": spread(columns["user_id"][starts], ""),
            "expected": np.isin(users, wanted.consumption.users),
            "n_lists": spread(counts.astype(np.int64)),
            "length": spread(_reduce(np.minimum, columns["length"], starts)),
            "wanted_length": wanted.wanted_length(users),
            "top_score": spread(_reduce(np.fmax, columns["top_score"], starts), np.nan),
            "mean_score": spread(columns["mean_score"][starts], np.nan),
        }
        for name in _SUMS:
            table[name] = spread(_reduce(np.add, columns[name].astype(np.int64), starts))
        frame = pd.DataFrame(table)
        return _with_ids(frame, wanted.consumption)


def _reduce(how: np.ufunc, values: NDArray[np.generic], starts: Int64s) -> NDArray[np.generic]:
    reduced: NDArray[np.generic] = how.reduceat(values, starts) if len(starts) else values
    return reduced


def _no_lists() -> dict[str, NDArray[np.generic]]:
    integers = {name: np.zeros(0, np.int64) for name in ("user_index", "length", *_SUMS)}
    floats = {name: np.zeros(0, np.float64) for name in ("top_score", "mean_score")}
    return {**integers, **floats, "user_id": np.zeros(0, object)}


def _with_ids(frame: pd.DataFrame, consumption: Consumption) -> pd.DataFrame:
    """Adds id_is_right (the dataset's name of that index, and nobody else's) and fills in the names of missing users."""
    given = frame["user_id"]
    has_list = frame["n_lists"] > 0
    right = ~(given.duplicated(keep=False) & has_list)
    if consumption.user_ids:
        wanted = frame["user_index"].map(consumption.user_ids)
        right &= (given == wanted) | ~has_list | ~frame["expected"]
        frame["user_id"] = given.where(has_list, wanted.fillna(""))
    frame["id_is_right"] = right
    return frame


def _scores(lists: Lists) -> tuple[dict[str, Int64s], NDArray[np.float64], NDArray[np.float64]]:
    """Counts a row of NaN, infinite, negative and unordered scores; the first score; the mean of the finite ones."""
    n, bits, scored = len(lists), lists.bits, None if lists.full else lists.scored()
    magnitude = bits & _MAGNITUDE
    sound = bool(bits.max(initial=0) < _INFINITE)
    nan = np.zeros(bits.shape, bool) if sound else magnitude > _INFINITE
    infinite = np.zeros(bits.shape, bool) if sound else magnitude == _INFINITE
    negative = np.zeros(bits.shape, bool) if sound else (bits > 0x8000) & ~nan
    counts = {
        "n_nan": np.count_nonzero(nan, axis=1),
        "n_infinite": np.count_nonzero(infinite, axis=1),
        "n_negative": np.count_nonzero(negative, axis=1),
        "n_unordered": _unordered(lists, nan, sound=sound),
    }
    values = bits.view(np.float16).astype(np.float32)
    usable = np.ones(bits.shape, bool) if scored is None else scored
    usable = usable if sound else usable & ~nan & ~infinite
    n_usable = np.count_nonzero(usable, axis=1)
    totals = np.where(usable, values, 0).sum(axis=1, dtype=np.float64)
    means = np.divide(totals, n_usable, out=np.full(n, np.nan), where=n_usable > 0)
    tops = np.full(n, np.nan) if bits.shape[1] == 0 else np.where(lists.n_scores > 0, values[:, 0], np.nan)
    return counts, tops.astype(np.float64), means


def _unordered(lists: Lists, nan: NDArray[np.bool_], *, sound: bool) -> Int64s:
    """Neighbours where the score rises, or stays while the item index falls. A NaN is not out of order: it is counted as NaN."""
    bits = lists.bits.view(np.int16)
    rank = bits if sound else np.where(bits < 0, -(bits & np.int16(0x7FFF)), bits)
    before, after = rank[:, :-1], rank[:, 1:]
    wrong = (after > before) | ((after == before) & (lists.items[:, 1:] < lists.items[:, :-1]))
    if not sound:
        wrong &= ~(nan[:, 1:] | nan[:, :-1])
    if not lists.full:
        wrong &= (lists.filled() & lists.scored())[:, 1:]
    return np.count_nonzero(wrong, axis=1)
