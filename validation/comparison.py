"""comparison: a snapshot beside the live one: how alike their lists and scores are, and whether they may be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.contracts.candidates import Int32s
from infra.contracts.metrics import population_stability_index
from infra.contracts.snapshots import Manifest
from validation.lists import PAD, Int64s
from validation.scan import Scan, evenly_spaced_scores

SAMPLE_USERS = 20_000
"""Users whose lists are compared, at most about this many: the mean overlap is then known to better than 0.01."""

COMMON_USERS_FRACTION = 0.5
"""With fewer of the live users in common the two were built from different data, and drift is no sign of a fault."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: item_ids gives the name of each item index, as strings."""

    manifest: Manifest
    scan: Scan
    item_ids: NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Comparison:
    """overlaps: float64 [n], Jaccard of the first TOP items by id for each user_id that both have in the sample.

    differences: why the two are not expected to be alike; empty where they are.
    """

    live: Manifest
    user_ids: list[str]
    overlaps: NDArray[np.float64]
    common_users_fraction: float
    score_psi: float
    live_score_counts: Int64s
    differences: tuple[str, ...]

    @property
    def alike_expected(self) -> bool:
        """Whether a large drift means a fault rather than a decision."""
        return not self.differences


def compare(new: Side, live: Side) -> Comparison:
    """By user id and item id: the indexes of two snapshots have nothing to do with each other."""
    live_row = {user_id: row for row, user_id in enumerate(live.scan.top_ids)}
    pairs = [(row, live_row[user_id]) for row, user_id in enumerate(new.scan.top_ids) if user_id in live_row]
    mine = np.array([row for row, _ in pairs], np.int64)
    theirs = np.array([row for _, row in pairs], np.int64)
    to_new = pd.Index(new.item_ids).get_indexer(pd.Index(live.item_ids))
    gone = to_new < 0
    to_new[gone] = len(new.item_ids) + np.flatnonzero(gone)
    live_tops = live.scan.tops[theirs]
    known = (live_tops >= 0) & (live_tops < len(to_new))
    renamed = np.where(known, to_new[np.where(known, live_tops, 0)], PAD).astype(np.int32)
    fraction = len(pairs) / len(live_row) if live_row else 0.0
    psi = population_stability_index(
        evenly_spaced_scores(live.scan.score_counts), evenly_spaced_scores(new.scan.score_counts)
    )
    return Comparison(
        live=live.manifest,
        user_ids=[new.scan.top_ids[row] for row in mine],
        overlaps=jaccard(new.scan.tops[mine], renamed),
        common_users_fraction=fraction,
        score_psi=psi,
        live_score_counts=live.scan.score_counts,
        differences=tuple(_differences(new.manifest, live.manifest, fraction)),
    )


def jaccard(a: Int32s, b: Int32s) -> NDArray[np.float64]:
    """|A and B| / |A or B| of each row's distinct items; int32 [n, w], PAD where a row is shorter. 1 where both are empty."""
    mine, theirs = _distinct(a), _distinct(b)
    merged = np.sort(np.concatenate([mine, theirs], axis=1), axis=1)
    both = np.count_nonzero((merged[:, 1:] == merged[:, :-1]) & (merged[:, 1:] != PAD), axis=1)
    either = np.count_nonzero(mine != PAD, axis=1) + np.count_nonzero(theirs != PAD, axis=1) - both
    return np.divide(both, either, out=np.ones(len(a)), where=either > 0)


def _distinct(rows: Int32s) -> Int32s:
    """Each row's items rising, PAD in the place of a repeated one."""
    ordered = np.sort(rows, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = PAD
    return ordered


def _differences(new: Manifest, live: Manifest, common: float) -> list[str]:
    found = []
    if common < COMMON_USERS_FRACTION:
        found.append(f"only {common:.0%} of the live users are in this snapshot")
    for what, ours, theirs in (
        ("embedder", new.embedder, live.embedder),
        ("dimensions", new.dim, live.dim),
        ("candidates a user", new.candidates_per_user, live.candidates_per_user),
        ("include_seen", new.include_seen, live.include_seen),
    ):
        if ours != theirs:
            found.append(f"{what} changed from {theirs} to {ours}")
    return found
