"""visitors: the world's users before a list that a service shows them: what they click, and what of it they buy.

One choice a list, by a random-utility model with an outside option; the truth is the generated world's (choice.py):

    V[u, i, t] = LIKING * (TASTE * <taste_u(t), v_i> - AGE * ((age_u - target_i) / AGE_SPREAD)^2) + APPEAL * log weight[i, t]
    P(the item at place k is clicked) = exp(V_k) / log2(k + 1) / (exp(OUTSIDE) + sum over the list of the same)
    P(it is bought, if clicked) = 1 / (1 + exp(-(BUYS + 2.5 * <taste_u(t), v_i> - thrift_u * (log price_i - 2.6))))

The list takes the page's place, so the chance that a page shows an item (which genres the user looks into) plays no part; the
quality, freshness and fashion in weight draw the eye still, less than on a page where they decide what is seen at all. LIKING below
1 is more chance than within a session: nothing is known of the mood. The place's weight is the discount of DCG. The purchase is the
session's (sessions.py) with a lower base: a list is glanced at, a session is somebody who came to buy.

Measured on a world of the sample's sizes (22,500 users, 20,000 items, seed 7), at its end, lists of 20 to 4,000 users, per cent:

    list                                            clicked   bought from
    the oracle's best, best first                      39.9           6.6
    the same, best last                                37.0           5.9
    by the oracle's score with noise of deviation 1    36.2           5.9
    as that, a third of the places at random           28.7           4.5
    the 20 most popular, to everybody                  23.0           2.5
    drawn at random                                     7.3           0.7
    the 20 most popular, to unknown users              13.7           0.7

A smaller catalogue has less to offer: with 3,000 items the lists with noise get 31.6 and 4.6, with 600 items 25.2 and 3.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from infra.contracts.errors import InvalidRequest
from infra.local.world.catalogue import Floats
from infra.local.world.choice import TASTE, Attention, age_misfit, attention, buying, taste_at, taste_share
from infra.local.world.oracle import Oracle

LIKING, APPEAL, OUTSIDE = 0.5, 0.25, 5.0
BUYS = -3.2
NOTHING = -1

_USUAL_THRIFT = 0.9


@dataclass(frozen=True, slots=True)
class Responses:
    """What became of lists. places: int64 [n], of the item clicked, from 0, NOTHING where none was; bought: bool [n], of it."""

    places: NDArray[np.int64]
    bought: NDArray[np.bool_]

    @property
    def clicked(self) -> NDArray[np.bool_]:
        """bool [n]: whether anything of the list was clicked."""
        return self.places != NOTHING


@dataclass(frozen=True, slots=True)
class Chances:
    """float32 [n, places]: click, that the item at the place is the one clicked; buy, that it is bought if clicked."""

    click: Floats
    buy: Floats

    def of(self, rows: NDArray[np.int64]) -> Chances:
        """Those lists' alone, in that order."""
        return Chances(self.click[rows], self.buy[rows])

    def draw(self, rng: np.random.Generator) -> Responses:
        """What everybody does this time."""
        n, width = self.click.shape
        upto = np.cumsum(self.click, axis=1)
        places = (rng.random((n, 1), dtype=np.float32) >= upto).sum(axis=1)
        places[places == width] = NOTHING
        buy = self.buy[np.arange(n), places] if width else np.zeros(n, np.float32)
        return Responses(places, (places != NOTHING) & (rng.random(n, dtype=np.float32) < buy))


class Visitors:
    """The users of a world. Those whom it does not know have no preference: what is good and new draws them, and its price."""

    def __init__(self, oracle: Oracle, rng: np.random.Generator) -> None:
        self._world, self._users, self._items = oracle.world, oracle.users, oracle.items
        self._rng = rng
        self._eye: tuple[datetime, Attention] | None = None

    @classmethod
    def open(cls, folder: str | Path, rng: np.random.Generator) -> Self:
        """Of a world's folder. Raises DatasetNotFound where there is none."""
        return cls(Oracle.open(folder), rng)

    @property
    def user_ids(self) -> tuple[str, ...]:
        """Everybody the world knows."""
        return tuple(self._users)

    @property
    def ends(self) -> datetime:
        """The end of the world's time: the moment at which a snapshot built of all its events is shown."""
        return self._world.size.start + timedelta(days=self._world.size.days)

    def price(self, item_id: str) -> float:
        """What it costs, as the world's purchases say it."""
        return float(self._world.items.price[self._items[item_id]])

    def respond(self, user_ids: Sequence[str], lists: Sequence[Sequence[str]], at: datetime) -> Responses:
        """What each user does with the list shown to him: lists[k] to user_ids[k]. Drawn anew on each call."""
        return self.chances(user_ids, lists, at).draw(self._rng)

    def chances(self, user_ids: Sequence[str], lists: Sequence[Sequence[str]], at: datetime) -> Chances:
        """How likely each response is; lists of item ids, best first, of any lengths.

        Raises InvalidRequest where an item is not of this world.
        """
        if len(user_ids) != len(lists):
            raise InvalidRequest(f"{len(user_ids)} users and {len(lists)} lists; wanted one list a user.")
        if at.tzinfo is None:
            raise InvalidRequest(f"{at.isoformat()} has no zone; wanted aware UTC.")
        items = self._numbers(lists)
        users = np.array([self._users.get(user_id, NOTHING) for user_id in user_ids], np.int64)
        known, people, catalogue = (users != NOTHING)[:, None], self._world.people, self._world.items
        size, at_us = self._world.size, round(at.timestamp() * 1_000_000)
        share = taste_share(at_us, start_us=size.start_us, days=size.days)
        taste = np.where(known, taste_at(people.taste_start[users], people.taste_end[users], share), np.float32(0))
        liking = np.einsum("nd,nkd->nk", taste, catalogue.vectors[items])
        misfit = np.where(
            known, age_misfit(people.age_years[users][:, None], catalogue.age_target[items]), np.float32(0)
        )
        appeal = self._attention(at, at_us).log_weight[items]
        value = LIKING * (TASTE * liking - misfit) + APPEAL * appeal - OUTSIDE
        discount = np.log2(np.arange(items.shape[1]) + 2.0)
        weight = np.where(items != NOTHING, np.exp(value) / discount, 0.0)
        click = weight / (1.0 + weight.sum(axis=1, keepdims=True))
        thrift = np.where(known, people.thrift[users][:, None], np.float32(_USUAL_THRIFT))
        buy = buying(liking, thrift=thrift, price=catalogue.price[items], base=BUYS)
        return Chances(click.astype(np.float32), buy.astype(np.float32))

    def _numbers(self, lists: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """int64 [n, longest list], NOTHING behind the end of a shorter one."""
        items = np.full((len(lists), max(map(len, lists), default=0)), NOTHING, np.int64)
        try:
            for row, shown in enumerate(lists):
                items[row, : len(shown)] = [self._items[item_id] for item_id in shown]
        except KeyError as error:
            raise InvalidRequest(f"This world has no item {error.args[0]!r}.") from error
        return items

    def _attention(self, at: datetime, at_us: int) -> Attention:
        """Kept for the next call: traffic asks for the same moment thousands of times, of a whole catalogue each."""
        if self._eye is None or self._eye[0] != at:
            world = self._world
            self._eye = (at, attention(world.items, world.trend, start_us=world.size.start_us, at_us=at_us))
        return self._eye[1]
