"""ranking features: the ranker's inputs, computed by one function in training and in serving."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

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

BATCH_FEATURES: tuple[str, ...] = USER_FEATURES + ITEM_FEATURES + CROSS_FEATURES
"""The group that a snapshot knows; its matches with the history see what came since the batch as well."""

NEARLINE_FEATURES: tuple[str, ...] = (
    "clicks_last_hour_log",  # log(1 + the user's clicks within the hour)
    "purchases_last_hour_log",  # log(1 + the user's purchases within the hour)
    "clicks_in_session_log",  # log(1 + the user's clicks since the last pause of half an hour)
    "recent_match",  # product of the item's vector with that of a user who took the recent items alone; 0 where none
    "last_match",  # the same of the newest of them alone
    "recent_creator_match",  # share of the recent items by the same creator
    "item_trending_log",  # log(1 + clicks, ratings and purchases of the item by all users within the hour)
)
"""The group that the stream knows: what happened since the batch, to this user and to the item."""

CONTEXT_FEATURES: tuple[str, ...] = (
    "session_length_log",  # log(1 + items taken in this session or since the batch)
    "hour_sin",  # of the hour of day, a whole number: the caller's own where the request names it, else that of UTC
    "hour_cos",
    "device_code",  # position in DEVICES; NaN where unknown
)
"""The group that the request knows."""

DEVICES: tuple[str, ...] = ("mobile", "desktop", "tv", "other")

RANKER_FEATURES: tuple[str, ...] = BATCH_FEATURES + NEARLINE_FEATURES + CONTEXT_FEATURES

FEATURE_GROUPS: dict[str, tuple[str, ...]] = {
    "batch": BATCH_FEATURES,
    "nearline": NEARLINE_FEATURES,
    "context": CONTEXT_FEATURES,
}
"""What each runtime brings; a group's worth is what the ranker loses without it."""

LIGHT_FEATURES: tuple[str, ...] = ("retrieval_score_share", "recent_match", "item_popularity_log")
"""What the light scorer adds up, each times its weight."""

LAST_ITEMS = 5
"""Recent items whose own products with a candidate the network sees."""

NETWORK_FEATURES: tuple[str, ...] = (
    *RANKER_FEATURES,
    "trees_score",
    "light_score",
    *(
        f"last_match_{place}" for place in range(1, LAST_ITEMS + 1)
    ),  # as last_match, of the newest item, of the one before it ...
)
"""The network's inputs."""

RANKER_HEAD, NETWORK_HEAD = 1000, 200
"""Rows of a list that each scores, at most: the best by the scores before it."""

MAX_GENRES = 64
"""The most frequent genres of a catalogue that get a column of their own; rarer ones do not count as a match."""

_AGE = USER_FEATURES.index("user_age_years")
_ITEM_AGE = ITEM_FEATURES.index("item_mean_user_age")
_FIRST_ITEM = len(USER_FEATURES)
_FIRST_CROSS = _FIRST_ITEM + len(ITEM_FEATURES)
_FIRST_NEARLINE = len(BATCH_FEATURES)
_FIRST_CONTEXT = _FIRST_NEARLINE + len(NEARLINE_FEATURES)


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


RECENT = 100
"""Recent items that make a vector, and that candidates are compared with; what was taken before them is only not shown again."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the stream and the request know when a list is ranked; by default of somebody of whom both know nothing.

    clicks_last_hour, purchases_last_hour, clicks_in_session: the user's nearline features. recent: int32 [r], item indices taken
    in this session or since the batch, newest first, each once, at most RECENT. trending: int32 [t], each once, and
    trending_counts: int64 [t], the board. hour: 0..23. device: of DEVICES, or empty.
    """

    clicks_last_hour: int = 0
    purchases_last_hour: int = 0
    clicks_in_session: int = 0
    recent: Int32s = field(default_factory=lambda: np.empty(0, np.int32))
    trending: Int32s = field(default_factory=lambda: np.empty(0, np.int32))
    trending_counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    hour: int = 0
    device: str = ""


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
    moment: Moment | None = None,
    matches: Float32s | None = None,
) -> Float32s:
    """The ranker's input, float32 [n, len(RANKER_FEATURES)], rows aligned with item_indices.

    user: [len(USER_FEATURES)]; scores, ranks: [n] as stored in the user's list (rank 0 is the best), also where only a
    part of the list is scored; best_score: the stored score at rank 0; history: [h] item indices, newest first, maybe empty.
    moment: see Moment; matches: float32 [n, 2], recent_match and last_match, 0 where not given.
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
        cross[:, 5] = _creator_match(items.creators, item_indices, history)
    else:
        cross[:, 3:6] = 0.0
    cross[:, 6] = np.abs(np.float32(user[_AGE]) - item_rows[:, _ITEM_AGE])
    now = Moment() if moment is None else moment
    nearline = out[:, _FIRST_NEARLINE:_FIRST_CONTEXT]
    nearline[:, 0] = math.log1p(now.clicks_last_hour)
    nearline[:, 1] = math.log1p(now.purchases_last_hour)
    nearline[:, 2] = math.log1p(now.clicks_in_session)
    nearline[:, 3:5] = 0.0 if matches is None else matches
    nearline[:, 5] = _creator_match(items.creators, item_indices, now.recent) if len(now.recent) else 0.0
    nearline[:, 6] = _trending_log(item_indices, now)
    out[:, _FIRST_CONTEXT:] = context_row(now)
    return out


def context_row(now: Moment) -> Float32s:
    """float32 [len(CONTEXT_FEATURES)]: the same for every item."""
    angle = 2 * math.pi * now.hour / 24
    device = DEVICES.index(now.device) if now.device else math.nan
    return np.array([math.log1p(len(now.recent)), math.sin(angle), math.cos(angle), device], np.float32)


def light_scores(weights: Sequence[float], features: Sequence[Float32s]) -> Float32s:
    """float32 [n]: the sum of LIGHT_FEATURES, each float32 [n], times their weights; what is unknown (NaN) adds nothing."""
    total = np.zeros(len(features[0]), np.float32)
    for weight, column in zip(weights, features, strict=True):
        total += np.float32(weight) * np.nan_to_num(column)
    return total


def network_matrix(features: Float32s, *, trees: Float32s, light: Float32s, products: Float32s) -> Float32s:
    """float32 [n, len(NETWORK_FEATURES)]. features: as `ranker_matrix` gives them; trees, light: [n]; products: [n, LAST_ITEMS]."""
    return np.column_stack([features, trees, light, products]).astype(np.float32, copy=False)


def _creator_match(creators: Int32s, item_indices: Int32s, seen: Int32s) -> Float32s:
    """float32 [n]: the share of the seen items, at least one, that are by the item's creator."""
    known, counts = np.unique(creators[seen], return_counts=True)
    own = creators[item_indices]
    at = np.minimum(np.searchsorted(known, own), len(known) - 1)
    same = (known[at] == own) & (own >= 0)
    return (np.where(same, counts[at], 0) / np.float32(len(seen))).astype(np.float32)


def _trending_log(item_indices: Int32s, now: Moment) -> Float32s:
    """float32 [n]."""
    if not len(now.trending):
        return np.zeros(len(item_indices), np.float32)
    order = np.argsort(now.trending, kind="stable")
    board = now.trending[order]
    at = np.minimum(np.searchsorted(board, item_indices), len(board) - 1)
    counts = np.where(board[at] == item_indices, now.trending_counts[order][at], 0)
    return np.log1p(counts).astype(np.float32)
