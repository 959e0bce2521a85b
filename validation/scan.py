"""scan: one pass over a snapshot's lists: what is counted over all of them, and the few that are kept for a closer look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.contracts.candidates import Float16s, Float32s, Int32s
from infra.contracts.snapshots import Manifest
from infra.snapshots.tables import CANDIDATES
from infra.snapshots.versions import Version
from validation.lists import PAD, Int64s, Lists, UInt16s, read_lists

TOP = 100
"""How far down two snapshots' lists are compared: what a request can be expected to show."""

PAGE = 10
"""How much of a list a user sees first."""

SCORE_VALUES = 1 << 16
"""A float16 score has one of this many values, so counts of each are an exact distribution of any number of scores."""


@dataclass(frozen=True, slots=True)
class KeptList:
    """One whole list: items int32 [n], bits uint16 [m] (the stored scores), features float16 [f], history int32 [h]."""

    user_id: str
    items: Int32s
    bits: UInt16s
    features: Float16s
    history: Int32s


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass found.

    score_counts: int64 [65536], how often each float16 score occurs, by its bits. exposure, first_page: int64 [n_items], in
    how many lists, and in how many users' first PAGE, an item is. tops: int32 [m, TOP], the first items of the users
    top_ids (a share of all, chosen by a hash of the id), PAD where a list is shorter. kept: by user index.
    """

    n_lists: int
    score_counts: Int64s
    exposure: Int64s
    first_page: Int64s
    top_ids: list[str]
    tops: Int32s
    kept: dict[int, KeptList]


def scan(
    version: Version,
    manifest: Manifest,
    *,
    keep: Int32s,
    top_share: float,
    each: Callable[[Lists], None] = lambda lists: None,
) -> Scan:
    """Read every list once. keep: user indexes of lists to keep whole; top_share: of the users to keep the tops of."""
    n_items = manifest.counts["items"]
    score_counts = np.zeros(SCORE_VALUES, np.int64)
    exposure, first_page = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)
    top_ids: list[str] = []
    tops: list[Int32s] = []
    kept: dict[int, KeptList] = {}
    n_lists = 0
    files = sorted(manifest.parts[CANDIDATES].files)
    for lists in read_lists(version.storage, files, n_features=len(manifest.user_feature_order)):
        n_lists += len(lists)
        score_counts += np.bincount(_flat(lists.bits, lists.n_scores, lists.full), minlength=SCORE_VALUES)
        exposure += _count_items(_flat(lists.items, lists.n_items, lists.full), n_items)
        shown = lists.items[:, :PAGE]
        first_page += _count_items(shown[np.arange(shown.shape[1]) < lists.n_items[:, None]], n_items)
        chosen = np.flatnonzero(in_sample(lists.user_id, share=top_share))
        top_ids.extend(lists.user_id[row] for row in chosen)
        tops.append(_tops(lists, chosen))
        for row in np.flatnonzero(np.isin(lists.user_index, keep)):
            kept.setdefault(int(lists.user_index[row]), _keep(lists, int(row)))
        each(lists)
    return Scan(
        n_lists=n_lists,
        score_counts=score_counts,
        exposure=exposure,
        first_page=first_page,
        top_ids=top_ids,
        tops=np.concatenate(tops) if tops else np.zeros((0, TOP), np.int32),
        kept=kept,
    )


def in_sample(user_ids: list[str], *, share: float) -> NDArray[np.bool_]:
    """Which users belong to the sample of that share: the same in every snapshot, since a hash of the id decides."""
    if share >= 1.0:
        return np.ones(len(user_ids), bool)
    hashed = pd.util.hash_array(np.array(user_ids, object), categorize=False)
    return np.asarray(hashed < np.uint64(share * 2**64))


def score_values() -> Float32s:
    """The number that each position of score_counts stands for."""
    return np.arange(SCORE_VALUES, dtype=np.uint16).view(np.float16).astype(np.float32)


def evenly_spaced_scores(score_counts: Int64s, *, n: int = 100_000) -> NDArray[np.float64]:
    """n scores at evenly spaced ranks of the finite ones, rising: the distribution as a sample; empty where there is none."""
    values = score_values()
    order = np.argsort(values)
    order = order[np.isfinite(values[order])]
    below = np.cumsum(score_counts[order])
    if len(below) == 0 or below[-1] == 0:
        return np.zeros(0)
    ranks = (np.arange(n) + 0.5) / n * below[-1]
    return values[order][np.searchsorted(below, ranks, "right")].astype(np.float64)


def _flat(rows: NDArray[np.generic], counts: Int64s, full: bool) -> NDArray[np.generic]:
    return rows.ravel() if full else rows[np.arange(rows.shape[1]) < counts[:, None]]


def _count_items(items: NDArray[np.generic], n_items: int) -> Int64s:
    inside = items.view(np.uint32) < n_items
    return np.bincount(items if inside.all() else items[inside], minlength=n_items)


def _tops(lists: Lists, chosen: Int64s) -> Int32s:
    out = np.full((len(chosen), TOP), PAD, np.int32)
    width = min(TOP, lists.items.shape[1])
    out[:, :width] = lists.items[chosen, :width]
    return out


def _keep(lists: Lists, row: int) -> KeptList:
    end = int(lists.n_history[: row + 1].sum())
    return KeptList(
        user_id=lists.user_id[row],
        items=lists.items[row, : lists.n_items[row]].copy(),
        bits=lists.bits[row, : lists.n_scores[row]].copy(),
        features=lists.features[row].copy(),
        history=lists.history[end - int(lists.n_history[row]) : end].copy(),
    )
