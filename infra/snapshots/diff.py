"""diff: what users would notice between two snapshots: who has a list, what is in it, how it scores, how popular it is."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.catalog.features.ranking import ITEM_FEATURES
from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.metrics import population_stability_index
from infra.contracts.snapshots import Manifest
from infra.snapshots.tables import CANDIDATES, ITEM_TABLE, candidate_batches, read_item_table
from infra.snapshots.versions import Version

TOP = (10, 100)
"""Lengths at which lists are compared: a page, and what the ranker mostly chooses from."""

_POPULARITY = ITEM_FEATURES.index("item_popularity_log")
_BUCKETS = 1 << 32
_BINS = 24


@dataclass(frozen=True, slots=True)
class Side:
    """One snapshot's half of a comparison.

    users: all of its users. compared: those drawn. top_score_mean: mean stored score of the lists' first TOP[0] items.
    popularity_mean: mean over those items of log(1 + events), by the older snapshot's counts where it knows the item.
    items_shown_fraction: share of the catalogue that is among the first TOP[0] of anybody drawn.
    """

    version: str
    users: int
    compared: int
    items: int
    list_length_mean: float
    top_score_mean: float
    popularity_mean: float
    items_shown_fraction: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of each side's values in bins of equal width between low and high; empty where that side has none."""

    low: float
    high: float
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """How two snapshots differ for the users that were drawn.

    overlap_mean: for each k of TOP, the mean share of the first k that both lists have. disjoint_fraction: the share of users
    whose first TOP[0] have nothing in common. score_psi, popularity_psi: population stability indexes over the first TOP[0];
    above 0.25 they have moved. scores, popularities: of the first TOP[0]. overlaps: of the first TOP[0], of users in both, on the
    newer side alone.
    """

    before: Side
    after: Side
    users_in_both: int
    users_left: int
    users_new: int
    overlap_mean: dict[int, float]
    disjoint_fraction: float
    score_psi: float
    popularity_psi: float
    scores: Histogram
    popularities: Histogram
    overlaps: Histogram


@dataclass(frozen=True, slots=True)
class _List:
    """One user's list as far as it is compared: int32 item numbers common to both snapshots, float32 scores, its whole length."""

    items: Int32s
    scores: Float32s
    length: int


class _Items:
    """Numbers items across two catalogues: the older one's as they are, the newer one's new ones after them."""

    def __init__(self, before: Version, after: Version) -> None:
        manifests = before.manifest(), after.manifest()
        old, new = (
            read_item_table(version.storage, sorted(manifest.parts[ITEM_TABLE].files))
            for version, manifest in zip((before, after), manifests, strict=True)
        )
        self.before: Int32s = np.arange(len(old.item_ids), dtype=np.int32)
        number_of = dict(old.index_of)
        self.after: Int32s = np.array([number_of.setdefault(name, len(number_of)) for name in new.item_ids], np.int32)
        self.popularity: Float32s = np.empty(len(number_of), np.float32)
        self.popularity[self.after] = new.columns.features[:, _POPULARITY]
        self.popularity[self.before] = old.columns.features[:, _POPULARITY]


def compare(before: Version, after: Version, *, users: int) -> Difference:
    """Compare about that many users, drawn by the hash of their id: the same ones each time, and in both snapshots.

    One side's drawn lists are held, the other's are streamed: memory is bounded by `users`, whatever the snapshots' size.
    """
    manifests = before.manifest(), after.manifest()
    most = max(manifest.counts["users"] for manifest in manifests)
    below = _BUCKETS if most <= users else int(_BUCKETS * users / most)
    items = _Items(before, after)
    old = dict(_lists(before, manifests[0], items.before, below=below))
    seen_before, seen_after = _Seen(items.popularity), _Seen(items.popularity)
    overlaps: dict[int, list[float]] = {k: [] for k in TOP}
    for found in old.values():
        seen_before.add(found)
    for user_id, found in _lists(after, manifests[1], items.after, below=below):
        seen_after.add(found)
        known = old.get(user_id)
        if known is not None:
            for k, shares in overlaps.items():
                shares.append(_overlap(known.items[:k], found.items[:k]))
    in_both = len(overlaps[TOP[0]])
    return Difference(
        before=seen_before.side(before, manifests[0]),
        after=seen_after.side(after, manifests[1]),
        users_in_both=in_both,
        users_left=seen_before.users - in_both,
        users_new=seen_after.users - in_both,
        overlap_mean={k: float(np.mean(shares)) if shares else 0.0 for k, shares in overlaps.items()},
        disjoint_fraction=float(np.mean(np.array(overlaps[TOP[0]]) == 0.0)) if in_both else 0.0,
        score_psi=population_stability_index(seen_before.scores, seen_after.scores),
        popularity_psi=population_stability_index(seen_before.popularities, seen_after.popularities),
        scores=_histogram(seen_before.scores, seen_after.scores),
        popularities=_histogram(seen_before.popularities, seen_after.popularities),
        overlaps=_histogram(np.empty(0), np.array(overlaps[TOP[0]]), within=(0.0, 1.0)),
    )


class _Seen:
    """What the lists of one side add up to."""

    def __init__(self, popularity: Float32s) -> None:
        self._popularity = popularity
        self._scores: list[Float32s] = []
        self._items: list[Int32s] = []
        self._length = 0
        self.users = 0

    def add(self, found: _List) -> None:
        self.users += 1
        self._length += found.length
        self._scores.append(found.scores)
        self._items.append(found.items[: TOP[0]])

    @property
    def scores(self) -> NDArray[np.float64]:
        return np.concatenate(self._scores or [np.empty(0, np.float32)]).astype(np.float64)

    @property
    def popularities(self) -> NDArray[np.float64]:
        return self._popularity[self._shown()].astype(np.float64)

    def side(self, version: Version, manifest: Manifest) -> Side:
        scores, popularities, items = self.scores, self.popularities, manifest.counts["items"]
        return Side(
            version=version.version,
            users=manifest.counts["users"],
            compared=self.users,
            items=items,
            list_length_mean=self._length / max(self.users, 1),
            top_score_mean=float(scores.mean()) if len(scores) else 0.0,
            popularity_mean=float(popularities.mean()) if len(popularities) else 0.0,
            items_shown_fraction=len(np.unique(self._shown())) / max(items, 1),
        )

    def _shown(self) -> Int32s:
        return np.concatenate(self._items or [np.empty(0, np.int32)])


def _lists(version: Version, manifest: Manifest, numbers: Int32s, *, below: int) -> Iterator[tuple[str, _List]]:
    """The drawn users' lists; numbers: int32 [items], from the snapshot's item index to the common number."""
    for batch in candidate_batches(version.storage, sorted(manifest.parts[CANDIDATES].files)):
        columns = (batch[name].to_pylist() for name in ("user_id", "item_indices", "scores"))
        for user_id, packed_items, packed_scores in zip(*columns, strict=True):
            if zlib.crc32(user_id.encode()) < below:
                items, scores = np.frombuffer(packed_items, "<i4"), np.frombuffer(packed_scores, "<f2")
                yield user_id, _List(numbers[items[: max(TOP)]], scores[: TOP[0]].astype(np.float32), len(items))


def _histogram(
    before: NDArray[np.float64], after: NDArray[np.float64], *, within: tuple[float, float] | None = None
) -> Histogram:
    both = np.concatenate([before, after])
    low, high = within or ((float(both.min()), float(both.max())) if len(both) else (0.0, 0.0))
    counts = [np.histogram(values, bins=_BINS, range=(low, high))[0] for values in (before, after)]
    shares = (
        tuple((count / count.sum()).round(6).tolist()) if count.sum() else tuple[float, ...]() for count in counts
    )
    return Histogram(low, high, *shares)


def _overlap(one: Int32s, other: Int32s) -> float:
    longest = max(len(one), len(other))
    return len(np.intersect1d(one, other, assume_unique=True)) / longest if longest else 1.0
