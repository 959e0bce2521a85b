"""sessions: one day of the world: who comes when, what is on the page, what is viewed, clicked and bought."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.local.world.catalogue import Catalogue, Floats, Ints
from infra.local.world.choice import (
    CREATOR,
    TASTE,
    THEME,
    Attention,
    age_misfit,
    attention,
    buying,
    taste_at,
    taste_share,
)
from infra.local.world.names import COUNTRY_UTC_HOURS, GENRES
from infra.local.world.people import People
from infra.local.world.size import DAY_STREAM, DAY_US, WorldSize

TYPES: tuple[str, ...] = ("view", "click", "purchase")
VIEW, CLICK, PURCHASE = range(3)

_THEME_SLOTS, _MIX_SLOTS, _ANY_SLOTS = 56, 24, 16
PAGE = _THEME_SLOTS + _MIX_SLOTS + _ANY_SLOTS
"""Items before a user's eyes in one session. 5/6 of them come from the user's genres, 1/6 from anywhere."""

_CHUNK = 1024  # sessions at a time: their pages' vectors (9 MB) stay near the processor
_MEAN_LENGTH, _MAX_LENGTH = 5.0, 16
_BUYS = -2.3
_HOUR_SHARES = np.array(
    [2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 10, 9, 7, 7, 8, 10, 13, 16, 18, 16, 10, 5], np.float64
)  # by local hour: a rise at noon, the height in the evening


@dataclass(frozen=True, slots=True)
class Events:
    """Columns of equal length. users, items: int32 numbers; types: int8 in TYPES; price: NaN unless bought."""

    users: Ints
    items: Ints
    times_us: NDArray[np.int64]
    types: NDArray[np.int8]
    values: Floats


@dataclass(frozen=True, slots=True)
class Shelves:
    """Items repeated in proportion to their weight, genre after genre: a uniform slot is an item by weight.

    slots: int32 [about 16 * items]; starts: int64 [genres + 1].
    """

    slots: Ints
    starts: NDArray[np.int64]


def fill_shelves(items: Catalogue, seen: Attention, by_genre: NDArray[np.int64], *, offset: float) -> Shelves:
    """Systematic rounding: an item gets floor or ceil of its fair number of slots, on average over `offset` exactly it.

    A draw is then one random number and one look-up instead of a search: what makes 10M events cheap.
    """
    n_slots = int(np.clip(16 * len(by_genre), 2**18, 2**24))
    upto = np.cumsum(np.exp(seen.log_weight[by_genre].astype(np.float64)))
    ends = np.floor(upto / upto[-1] * n_slots + offset).astype(np.int64)
    counts = np.diff(ends, prepend=0)
    slots = np.repeat(by_genre.astype(np.int32), counts)
    genre_of_slot = items.genres[slots, 0]
    return Shelves(slots, np.searchsorted(genre_of_slot, np.arange(len(GENRES) + 1)))


def days(size: WorldSize) -> NDArray[np.int64]:
    """int64 [days]: how many events each day has: weekends are busy, the site grows, the sum is exact."""
    day = np.arange(size.days)
    weekday = (size.start.weekday() + day) % 7
    share = np.where(weekday >= 5, 1.3, 1.0) * (1 + 0.4 * day / size.days)
    upto = np.floor(np.cumsum(share) / share.sum() * size.events + 1e-9).astype(np.int64)
    upto[-1] = size.events
    return np.diff(upto, prepend=0)


@dataclass(frozen=True, slots=True)
class World:
    """All that events are drawn from."""

    size: WorldSize
    items: Catalogue
    people: People
    trend: Floats


class Day:
    """One day: `events()` yields its events in chunks, the same on every run."""

    def __init__(self, world: World, number: int, *, by_genre: NDArray[np.int64], come: NDArray[np.float64]) -> None:
        """by_genre: item numbers sorted by primary genre; come: cumulative chance of each user to be the next to come."""
        self._world, self._number, self._come = world, number, come
        self._rng = world.size.rng(DAY_STREAM, number)
        self._start_us = world.size.start_us + number * DAY_US
        seen = attention(world.items, world.trend, start_us=world.size.start_us, at_us=self._start_us)
        self._shelves = fill_shelves(world.items, seen, by_genre, offset=float(self._rng.random()))
        self._share = taste_share(self._start_us, start_us=world.size.start_us, days=world.size.days)

    def events(self, count: int) -> Iterator[Events]:
        """Exactly `count` events."""
        while count > 0:
            lengths = np.minimum(self._rng.geometric(1 / _MEAN_LENGTH, _CHUNK), _MAX_LENGTH)
            upto = np.cumsum(lengths)
            if upto[-1] > count:  # the last session is cut short
                n = int(np.searchsorted(upto, count)) + 1
                lengths = lengths[:n]
                lengths[-1] -= int(upto[n - 1]) - count
            count -= int(lengths.sum())
            yield self._sessions(np.sort(lengths)[::-1])

    def _sessions(self, lengths: NDArray[np.int64]) -> Events:
        """lengths: descending, so that the sessions still open at a step are the first ones."""
        rng, n = self._rng, len(lengths)
        people, items = self._world.people, self._world.items
        users = np.searchsorted(self._come, rng.random(n) * self._come[-1], side="right").astype(np.int32)
        page = self._page(users)
        vectors = items.vectors[page]  # [n, PAGE, TASTE_DIM]
        taste = taste_at(people.taste_start[users], people.taste_end[users], self._share)
        liking = np.einsum("spd,sd->sp", vectors, taste)
        noise = -np.log(rng.standard_exponential(page.shape, dtype=np.float32) + np.float32(1e-20))
        utility = (
            np.float32(TASTE) * liking - age_misfit(people.age_years[users][:, None], items.age_target[page]) + noise
        )
        makers = items.creators[page]
        steps = int(lengths[0])
        chosen = np.empty((steps, n), np.int32)
        types = np.empty((steps, n), np.int8)
        at = np.zeros(n, np.int64)
        for step in range(steps):
            open_ = int(np.searchsorted(-lengths, -step, side="left"))  # sessions longer than `step`
            rows = np.arange(open_)
            if step:
                last = at[:open_]
                same = vectors[rows, last]
                now = utility[:open_] + np.float32(THEME) * np.einsum("spd,sd->sp", vectors[:open_], same)
                now += np.float32(CREATOR) * (makers[:open_] == makers[rows, last][:, None])
                pick = now.argmax(axis=1)
                buys = (types[step - 1, :open_] == CLICK) & self._buys(
                    users[:open_], page[rows, last], liking[rows, last]
                )
                pick = np.where(buys, last, pick)
            else:
                pick = utility.argmax(axis=1)
                buys = np.zeros(open_, np.bool_)
            clicks = rng.random(open_) < 1 / (1 + np.exp(-(0.7 + 2.2 * liking[rows, pick])))
            types[step, :open_] = np.where(buys, PURCHASE, np.where(clicks, CLICK, VIEW))
            chosen[step, :open_] = page[rows, pick]
            utility[:open_][page[:open_] == chosen[step, :open_, None]] = -np.inf  # a page may show an item twice
            at[:open_] = pick
        return self._columns(users, lengths, chosen, types)

    def _page(self, users: Ints) -> Ints:
        """int32 [n, PAGE]: the session's theme is one of the user's genres; most of the page is of it."""
        rng, n, shelves = self._rng, len(users), self._shelves
        upto = np.cumsum(self._world.people.mixture[users], axis=1)
        upto /= upto[:, -1:]
        draws = rng.random((n, 1 + _MIX_SLOTS), dtype=np.float32)
        genres = np.minimum((draws[:, :, None] > upto[:, None, :]).sum(axis=2), len(GENRES) - 1)
        genres = np.concatenate([np.repeat(genres[:, :1], _THEME_SLOTS, axis=1), genres[:, 1:]], axis=1)
        start, width = shelves.starts[genres], np.diff(shelves.starts)[genres]
        empty = width == 0  # a small catalogue may have nothing of a genre: then anything
        start, width = np.where(empty, 0, start), np.where(empty, len(shelves.slots), width)
        own = start + (rng.random(genres.shape) * width).astype(np.int64)
        other = rng.integers(0, len(shelves.slots), (n, _ANY_SLOTS))
        return shelves.slots[np.concatenate([own, other], axis=1)]

    def _buys(self, users: Ints, items: Ints, liking: Floats) -> NDArray[np.bool_]:
        thrift, price = self._world.people.thrift[users], self._world.items.price[items]
        return self._rng.random(len(users)) < buying(liking, thrift=thrift, price=price, base=_BUYS)

    def _columns(self, users: Ints, lengths: NDArray[np.int64], chosen: Ints, types: NDArray[np.int8]) -> Events:
        rng, (steps, n) = self._rng, chosen.shape
        local_hour = rng.choice(24, n, p=_HOUR_SHARES / _HOUR_SHARES.sum()) + rng.random(n)
        utc_hour = (local_hour - np.array(COUNTRY_UTC_HOURS)[self._world.people.country[users]]) % 24
        gaps_s = rng.lognormal(3.6, 0.8, (steps, n)) + 0.001
        gaps_s[0] = 0
        times = (
            self._start_us
            + (utc_hour * 3_600_000).astype(np.int64) * 1000
            + np.cumsum((gaps_s * 1000).astype(np.int64), axis=0) * 1000
        )
        real = np.arange(steps)[:, None] < lengths
        items, types = chosen[real], types[real]
        price = np.where(types == PURCHASE, self._world.items.price[items], np.nan).astype(np.float32)
        return Events(np.broadcast_to(users, real.shape)[real], items, times[real], types, price)
