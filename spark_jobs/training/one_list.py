"""one_list: one user's candidates at a moment in the past, as the scorers would have seen them, as a row for the driver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.catalog.features.ranking import LAST_ITEMS, ItemColumns, ranker_matrix
from infra.contracts.candidates import MAX_HISTORY, Float32s, Int32s, ScoreMap
from infra.snapshots.tables import UserProjection
from infra.snapshots.vectors import VectorSearch, by_popularity
from spark_jobs.training.moments import Asked, Crowd, Lived, asked_by

SHOWN = 10
"""Positions that the metrics look at."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """users: at most so many; negatives: at most so many candidates a user that were not taken, None: all; seed: which ones."""

    users: int
    negatives: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class Known:
    """What every worker needs of a past, see Past; item_vectors: float32 [items, d], projection: from them to a user's vector."""

    items: ItemColumns
    existed: NDArray[np.bool_]
    popular: Int32s
    crowd: Crowd
    item_vectors: Float32s
    projection: UserProjection | None
    score_map: ScoreMap
    include_seen: bool

    def search(self) -> VectorSearch | None:
        """As the service makes it; None where vectors of users cannot be made."""
        if self.projection is None:
            return None
        return VectorSearch(self.item_vectors, self.projection, order=by_popularity(self.items, self.popular))


@dataclass(frozen=True, slots=True)
class Listed:
    """One user's list of the cut, whole. item_indices: int32 [n], scores: float16 [n], features: float16 [f], history: int32 [h]:
    as stored; taken: int32, consumed by then; lived: what the user did afterwards, and shortly before."""

    user_index: int
    item_indices: Int32s
    scores: NDArray[np.float16]
    features: NDArray[np.float16]
    history: Int32s
    taken: Int32s
    lived: Lived


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What a request's filters leave, all [n]. items: int32; scores: float32, as the sources brought them; ranks: int32."""

    items: Int32s
    scores: Float32s
    ranks: Int32s


def example(user: Listed, known: Known, search: VectorSearch | None, sampling: Sampling) -> dict[str, object] | None:
    """One user's row of what goes to the driver, see Examples; None where the window has nothing new of the user.

    A candidate that was not in the catalogue yet leaves the list: a snapshot of then could not have held it. An item taken
    before is not wanted anew, and hidden from every list, unless the snapshot includes what users have seen.
    """
    none = np.zeros(0, np.int32)
    asked = asked_by(
        user.user_index,
        user.lived,
        taken=none if known.include_seen else user.taken,
        crowd=known.crowd,
        seed=sampling.seed,
    )
    if asked is None:
        return None
    recent = asked.moment.recent
    hidden = none if known.include_seen else np.union1d(user.taken, recent).astype(np.int32)
    new = ~np.isin(asked.wanted_items, hidden)
    wanted_items, wanted_grades = asked.wanted_items[new], asked.wanted_grades[new]
    there = known.existed[user.item_indices]
    stored = user.scores[there]
    found = _candidates(user.item_indices[there], stored, asked, known, search, hidden=hidden)
    grades = np.zeros(len(found.items), np.uint8)
    _, at, which = np.intersect1d(found.items, wanted_items, return_indices=True)
    grades[at] = wanted_grades[which]
    rows = _kept(grades, sampling, user_index=user.user_index)
    items = found.items[rows]
    products = np.zeros((len(rows), 1 + LAST_ITEMS), np.float32)
    if search is not None:
        products = search.matches(items, recent.tolist(), each=LAST_ITEMS)
    matrix = ranker_matrix(
        user.features,
        known.items,
        item_indices=items,
        scores=found.scores[rows],
        ranks=found.ranks[rows],
        best_score=float(stored[0]) if len(stored) else 0.0,
        history=np.fromiter(dict.fromkeys([*recent.tolist(), *user.history.tolist()]), np.int32)[:MAX_HISTORY],
        moment=asked.moment,
        matches=products[:, :2],
    )
    shown = known.popular[~np.isin(known.popular, hidden)][:SHOWN]
    hits = np.zeros(SHOWN, np.bool_)
    hits[: len(shown)] = np.isin(shown, wanted_items)
    return {
        "user_index": user.user_index,
        "n_wanted": len(wanted_items),
        "features": matrix.astype("<f4", copy=False).tobytes(),
        "grades": grades[rows].tobytes(),
        "products": np.ascontiguousarray(products[:, 1:], "<f4").tobytes(),
        "popular_hits": hits.tobytes(),
    }


def _candidates(
    items: Int32s,
    stored: NDArray[np.float16],
    asked: Asked,
    known: Known,
    search: VectorSearch | None,
    *,
    hidden: Int32s,
) -> _Candidates:
    """The list of the cut and, behind it, what goes with the recent items and is not on it; nothing that is hidden."""
    ranks = np.arange(len(items), dtype=np.int32)
    shown = ~np.isin(items, hidden)
    recent = asked.moment.recent.tolist()
    if search is None or not recent:
        return _Candidates(items[shown], stored[shown].astype(np.float32), ranks[shown])
    fresh, scores = search.fresh(recent, hidden=hidden, score_map=known.score_map)
    beside = ~np.isin(fresh, items)
    return _Candidates(
        np.concatenate([items[shown], fresh[beside]]),
        np.concatenate([stored[shown], scores[beside]]).astype(np.float32),
        np.concatenate([ranks[shown], np.arange(len(fresh), dtype=np.int32)[beside]]),
    )


def _kept(grades: NDArray[np.uint8], sampling: Sampling, *, user_index: int) -> NDArray[np.int64]:
    """The positions to keep, rising: every taken one, and others drawn evenly, so that no position is favoured."""
    others = np.flatnonzero(grades == 0)
    if sampling.negatives is None or len(others) <= sampling.negatives:
        return np.arange(len(grades))
    rng = np.random.default_rng((sampling.seed, user_index))
    drawn = rng.choice(others, sampling.negatives, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(grades), drawn]))
