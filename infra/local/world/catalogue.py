"""catalogue: the world's items: genres, creators, prices, true taste vectors, quality, and when each appeared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infra.local.world.names import GENRES, creator_names, titles
from infra.local.world.size import CATALOGUE_STREAM, DAY_US, WorldSize

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TASTE_DIM = 24
ITEMS_PER_CREATOR = 25
NEW_SHARE = 0.25
"""Share of the items that appear while the world runs; the others were there before."""

_QUALITY_SPREAD = (
    1.25  # of a log-normal: the best 1 % of the items draw about 15 % of the attention, the best 10 % half
)
_GENRE_WEIGHT, _CREATOR_WEIGHT, _OWN_WEIGHT = 0.62, 0.62, 0.48
_BACK_CATALOGUE_DAYS = 400


@dataclass(frozen=True, slots=True)
class Taste:
    """What genres and creators feel like; users and items are drawn from the same.

    genre_vectors: float32 [genres, TASTE_DIM], unit rows; genre_ages: float32 [genres], the age it speaks to most;
    creator_vectors: float32 [creators, TASTE_DIM], unit rows; creator_genre: int32 [creators].
    """

    genre_vectors: Floats
    genre_ages: Floats
    genre_shares: Floats
    creator_vectors: Floats
    creator_genre: Ints


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All arrays [items] and aligned with the item's number, vectors [items, TASTE_DIM] with unit rows.

    genres: int32 [items, 3], -1 where none; the first is the primary. first_seen_us: int64, microseconds since 1970.
    freshness: how much being new helps it, in logits at birth.
    """

    vectors: Floats
    genres: Ints
    creators: Ints
    quality: Floats
    freshness: Floats
    price: Floats
    age_target: Floats
    first_seen_us: NDArray[np.int64]


def unit(rows: Floats) -> Floats:
    """Rows scaled to length one."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def invent_taste(size: WorldSize) -> Taste:
    """Genres lie apart but not at right angles; a creator works in one genre."""
    rng = size.rng(CATALOGUE_STREAM, 0)
    apart = np.linalg.qr(rng.standard_normal((TASTE_DIM, TASTE_DIM)))[0][: len(GENRES)]
    genres = unit((apart + 0.25 * rng.standard_normal(apart.shape) / np.sqrt(TASTE_DIM)).astype(np.float32))
    shares = rng.permutation(1.0 / np.arange(1, len(GENRES) + 1) ** 0.6).astype(np.float32)
    creators = max(1, -(-size.items // ITEMS_PER_CREATOR))
    vectors = unit(rng.standard_normal((creators, TASTE_DIM)).astype(np.float32))
    return Taste(
        genre_vectors=genres,
        genre_ages=rng.uniform(22, 58, len(GENRES)).astype(np.float32),
        genre_shares=shares / shares.sum(),
        creator_vectors=vectors,
        creator_genre=rng.choice(len(GENRES), creators, p=shares / shares.sum()).astype(np.int32),
    )


def invent_items(size: WorldSize, taste: Taste) -> Catalogue:
    """An item's vector = its genres + its creator + something of its own."""
    rng = size.rng(CATALOGUE_STREAM, 1)
    n = size.items
    weight = rng.pareto(1.3, len(taste.creator_genre)) + 0.3  # some creators make far more than others
    creators = rng.choice(len(weight), n, p=weight / weight.sum()).astype(np.int32)
    genres = np.full((n, 3), -1, np.int32)
    genres[:, 0] = taste.creator_genre[creators]
    for column, share in ((1, 0.5), (2, 0.15)):
        other = rng.choice(len(GENRES), n, p=taste.genre_shares)
        fits = (
            (rng.random(n) < share) & (genres[:, column - 1] >= 0) & (genres[:, :column] != other[:, None]).all(axis=1)
        )
        genres[fits, column] = other[fits]
    blend = np.zeros((n, TASTE_DIM), np.float32)
    for column, share in ((0, 1.0), (1, 0.55), (2, 0.3)):
        has = genres[:, column] >= 0
        blend[has] += share * taste.genre_vectors[genres[has, column]]
    own = unit(rng.standard_normal((n, TASTE_DIM)).astype(np.float32))
    made = _GENRE_WEIGHT * unit(blend) + _CREATOR_WEIGHT * taste.creator_vectors[creators] + _OWN_WEIGHT * own
    new = rng.random(n) < NEW_SHARE
    born_days = np.where(new, rng.random(n) * size.days, -rng.random(n) * _BACK_CATALOGUE_DAYS)
    born_days[0] = -1.0  # there is always something to see
    fame = rng.standard_normal(len(weight)) * 0.5
    return Catalogue(
        vectors=unit(made),
        genres=genres,
        creators=creators,
        quality=(_QUALITY_SPREAD * (0.9 * rng.standard_normal(n) + 0.45 * fame[creators])).astype(np.float32),
        freshness=np.abs(rng.normal(1.6, 0.8, n)).astype(np.float32),
        price=np.round(np.exp(rng.normal(2.6, 0.8, n)), 2).astype(np.float32),
        age_target=np.clip(taste.genre_ages[genres[:, 0]] + rng.normal(0, 9, n), 14, 75).astype(np.float32),
        first_seen_us=size.start_us + (born_days * DAY_US).astype(np.int64) // 1_000_000 * 1_000_000,
    )


def item_ids(numbers: NDArray[np.integer]) -> pa.Array:
    """i0000000, i0000001, ..."""
    return _ids("i", numbers)


def user_ids(numbers: NDArray[np.integer]) -> pa.Array:
    """u0000000, u0000001, ..."""
    return _ids("u", numbers)


def _ids(letter: str, numbers: NDArray[np.integer]) -> pa.Array:
    return pa.array([f"{letter}{number:07d}" for number in numbers.tolist()], pa.string())


def item_table(size: WorldSize, items: Catalogue) -> pa.Table:
    """What a shop would know of its items: no tastes, no quality."""
    words = size.rng(CATALOGUE_STREAM, 2).integers(0, 2**31, (size.items, 4))
    used = (items.genres >= 0).sum(axis=1)
    flat = items.genres[items.genres >= 0]
    genres = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(used)]), pa.int32()), pa.array(GENRES, pa.string()).take(pa.array(flat))
    )
    creators = pa.array(creator_names(max(1, -(-size.items // ITEMS_PER_CREATOR))), pa.string())
    return pa.table(
        {
            "item_id": item_ids(np.arange(size.items)),
            "title": pa.array(titles(words), pa.string()),
            "genres": genres,
            "creator": creators.take(pa.array(items.creators)),
            "price": items.price,
            "first_seen": pa.array(items.first_seen_us, pa.timestamp("us", "UTC")),
        }
    )
