"""people: the world's users: who they are, what they truly like at the start and at the end, and how often they come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infra.local.world.catalogue import TASTE_DIM, Floats, Taste, unit, user_ids
from infra.local.world.names import COUNTRIES, COUNTRY_SHARES, GENDERS, GENRES
from infra.local.world.size import PEOPLE_STREAM, WorldSize

IDLE_SHARE = 0.02
"""Share of the users who never come."""

_BLOCK = 65_536
_FAVOURITE_CREATORS = 4
_UNKNOWN_AGE_SHARE, _UNKNOWN_GENDER_SHARE, _UNKNOWN_COUNTRY_SHARE = 0.12, 0.08, 0.03
_ACTIVITY_SPREAD = 1.15
_DRIFT = 0.55  # how far a taste moves from start to end, as the length of the step between unit vectors


@dataclass(frozen=True, slots=True)
class People:
    """Arrays [users], aligned with the user's number.

    taste_start, taste_end: float32 [users, TASTE_DIM], unit rows; the taste between is their straight mixture by time.
    mixture: float32 [users, genres], rows sum to 1: which genres the user looks into. activity: float32, 0 for the idle.
    thrift: how strongly a price puts the user off. gender, country: int8 positions in names.GENDERS, names.COUNTRIES.
    """

    taste_start: Floats
    taste_end: Floats
    mixture: Floats
    activity: Floats
    thrift: Floats
    age_years: Floats
    gender: NDArray[np.int8]
    country: NDArray[np.int8]


def invent_people(size: WorldSize, taste: Taste) -> People:
    """Everybody, drawn in blocks with a stream of chance each."""
    n = size.users
    people = People(
        taste_start=np.empty((n, TASTE_DIM), np.float32),
        taste_end=np.empty((n, TASTE_DIM), np.float32),
        mixture=np.empty((n, len(GENRES)), np.float32),
        activity=np.empty(n, np.float32),
        thrift=np.empty(n, np.float32),
        age_years=np.empty(n, np.float32),
        gender=np.empty(n, np.int8),
        country=np.empty(n, np.int8),
    )
    for block, start in enumerate(range(0, n, _BLOCK)):
        _invent_block(people, slice(start, min(n, start + _BLOCK)), size.rng(PEOPLE_STREAM, block), taste)
    if not people.activity.any():
        people.activity[0] = 1.0
    return people


def _invent_block(people: People, rows: slice, rng: np.random.Generator, taste: Taste) -> None:
    n = rows.stop - rows.start
    age = np.clip(rng.gamma(6.0, 4.2, n) + 13, 13, 90)
    gender = rng.choice(3, n, p=[0.48, 0.49, 0.03])
    people.age_years[rows], people.gender[rows] = np.floor(age), gender
    people.country[rows] = rng.choice(len(COUNTRIES), n, p=COUNTRY_SHARES)
    people.mixture[rows] = mixture = _mixtures(rng, taste, age, gender)
    people.taste_start[rows] = start = _tastes(rng, taste, mixture)
    people.taste_end[rows] = unit(start + _DRIFT * _tastes(rng, taste, _mixtures(rng, taste, age, gender)))
    people.activity[rows] = rng.lognormal(0, _ACTIVITY_SPREAD, n) * (rng.random(n) >= IDLE_SHARE)
    people.thrift[rows] = np.clip(rng.normal(0.9, 0.5, n), 0, None)


def _mixtures(rng: np.random.Generator, taste: Taste, age: NDArray[np.float64], gender: NDArray[np.int64]) -> Floats:
    """Sparse shares over genres, nudged by age and a little by gender: a Dirichlet with a small concentration."""
    fit = np.exp(-(((age[:, None] - taste.genre_ages) / 22) ** 2))
    lean = 1 + 0.25 * np.where(gender == 1, 1, -1)[:, None] * np.cos(np.arange(len(GENRES)) * 2.4)
    shape = 4.5 * taste.genre_shares * (0.35 + fit) * lean
    drawn = rng.standard_gamma(shape, dtype=np.float64) + 1e-6
    return (drawn / drawn.sum(axis=1, keepdims=True)).astype(np.float32)


def _tastes(rng: np.random.Generator, taste: Taste, mixture: Floats) -> Floats:
    """Favourite genres + a few favourite creators + something of one's own."""
    n = len(mixture)
    genres = unit(mixture @ taste.genre_vectors)
    favourites = rng.integers(0, len(taste.creator_genre), (n, _FAVOURITE_CREATORS))
    creators = unit(taste.creator_vectors[favourites].sum(axis=1))
    own = unit(rng.standard_normal((n, TASTE_DIM)).astype(np.float32))
    return unit(0.55 * genres + 0.55 * creators + 0.6 * own)


def user_table(size: WorldSize, people: People) -> pa.Table:
    """What a shop would know of its users: some left a field empty."""
    rng = size.rng(PEOPLE_STREAM, 1 << 31)
    n = size.users
    unknown = rng.random((n, 3)) < (_UNKNOWN_AGE_SHARE, _UNKNOWN_GENDER_SHARE, _UNKNOWN_COUNTRY_SHARE)
    return pa.table(
        {
            "user_id": user_ids(np.arange(n)),
            "age": pa.array(people.age_years, pa.float32(), mask=unknown[:, 0]),
            "gender": pa.array(GENDERS, pa.string()).take(pa.array(people.gender, mask=unknown[:, 1])),
            "country": pa.array(COUNTRIES, pa.string()).take(pa.array(people.country, mask=unknown[:, 2])),
        }
    )
