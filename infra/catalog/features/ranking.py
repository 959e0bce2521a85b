"""ranking features: the ranker's inputs, computed by one function in training and in serving."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.errors import ContractViolation

USER_FEATURES: tuple[str, ...] = (
    "user_activity_log",  # log(1 + events of the user)
    "user_recent_activity_log",  # log(1 + events of the user in the trend window)
    "user_days_since_last_log",  # log(1 + days between the user's last event and as_of)
    "user_purchase_share",  # events of the highest gain / events, smoothed
    "user_age_years",  # NaN where unknown
)
"""Kept in the user's record as float16."""

ITEM_FEATURES: tuple[str, ...] = (
    "item_popularity_log",  # log(1 + events of the item)
    "item_trend_log",  # log(1 + events of the item in the trend window)
    "item_trend_ratio",  # share of the item's events that fall in the trend window, smoothed
    "item_age_days_log",  # log(1 + days between first_seen and as_of)
    "item_purchase_share",  # events of the highest gain / events, smoothed
    "item_mean_value",  # mean value (a rating), NaN where none
    "item_mean_user_age",  # mean age of its users, NaN where unknown
)
"""Kept in the snapshot's item table as float32 columns of these names."""

CROSS_FEATURES: tuple[str, ...] = (
    "retrieval_score",  # the stored score
    "retrieval_score_share",  # stored score / the list's best stored score
    "retrieval_rank_log",  # log(1 + position in the list)
    "genre_match",  # mean cosine of the item's genres with those of the user's recent items
    "genre_match_last",  # cosine with the genres of the most recent item
    "creator_match",  # share of the recent items by the same creator
    "age_gap",  # |user_age_years - item_mean_user_age|
)
"""Computed at request time from the two and the user's recent items."""

RANKER_FEATURES: tuple[str, ...] = USER_FEATURES + ITEM_FEATURES + CROSS_FEATURES

MAX_GENRES = 64
"""The most frequent genres of a catalogue that get a column of their own; rarer ones do not count as a match."""

_AGE = USER_FEATURES.index("user_age_years")
_ITEM_AGE = ITEM_FEATURES.index("item_mean_user_age")
_FIRST_ITEM = len(USER_FEATURES)
_FIRST_CROSS = _FIRST_ITEM + len(ITEM_FEATURES)


def definition_hash() -> str:
    """Changes when a feature is added, dropped, renamed or moved: serving refuses a model of another hash."""
    return hashlib.sha256(json.dumps(RANKER_FEATURES).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """The item side of the features, aligned with the item index.

    features: float32 [items, len(ITEM_FEATURES)]; genres: float32 [items, genres], rows of length 1 or 0;
    creators: int32 [items], equal numbers mean the same creator, -1 unknown.
    """

    features: Float32s
    genres: Float32s
    creators: Int32s


def genre_matrix(genres: list[list[str]]) -> tuple[Float32s, tuple[str, ...]]:
    """Multi-hot genres with rows of unit length, float32 [items, <= MAX_GENRES], and the columns' names."""
    counts: dict[str, int] = {}
    for names in genres:
        for name in set(names):
            counts[name] = counts.get(name, 0) + 1
    columns = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_GENRES]
    position = {name: at for at, name in enumerate(columns)}
    matrix = np.zeros((len(genres), max(1, len(columns))), np.float32)
    for row, names in enumerate(genres):
        for name in names:
            if name in position:
                matrix[row, position[name]] = 1.0
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    np.divide(matrix, lengths, out=matrix, where=lengths > 0)
    return matrix, tuple(columns)


def ranker_matrix(
    user: NDArray[np.floating],
    items: ItemColumns,
    *,
    item_indices: Int32s,
    scores: NDArray[np.floating],
    ranks: NDArray[np.integer],
    best_score: float,
    history: Int32s,
) -> Float32s:
    """The ranker's input, float32 [n, len(RANKER_FEATURES)], rows aligned with item_indices.

    user: [len(USER_FEATURES)]; scores, ranks: [n] as stored in the user's list (rank 0 is the best), also where only a
    part of the list is scored; best_score: the stored score at rank 0; history: [h] item indices, newest first, maybe empty.
    """
    if len(user) != len(USER_FEATURES):
        raise ContractViolation(f"A user has {len(user)} features; wanted {len(USER_FEATURES)}: {USER_FEATURES}.")
    n = len(item_indices)
    out = np.empty((n, len(RANKER_FEATURES)), np.float32)
    out[:, :_FIRST_ITEM] = np.asarray(user, np.float32)
    item_rows = items.features[item_indices]
    out[:, _FIRST_ITEM:_FIRST_CROSS] = item_rows
    cross = out[:, _FIRST_CROSS:]
    cross[:, 0] = scores
    cross[:, 1] = cross[:, 0] / np.float32(max(best_score, 1e-6))
    cross[:, 2] = np.log1p(ranks)
    if len(history):
        genres = items.genres[item_indices]
        recent = items.genres[history]
        cross[:, 3] = genres @ recent.mean(axis=0)
        cross[:, 4] = genres @ recent[0]
        known, counts = np.unique(items.creators[history], return_counts=True)
        creators = items.creators[item_indices]
        at = np.minimum(np.searchsorted(known, creators), len(known) - 1)
        same = (known[at] == creators) & (creators >= 0)
        cross[:, 5] = np.where(same, counts[at], 0) / np.float32(len(history))
    else:
        cross[:, 3:6] = 0.0
    cross[:, 6] = np.abs(np.float32(user[_AGE]) - item_rows[:, _ITEM_AGE])
    return out
