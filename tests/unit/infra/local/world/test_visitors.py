"""Simulated users: better lists get more clicks, places and prices matter, and what is drawn is what was said to be likely."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.contracts.errors import DatasetNotFound, InvalidRequest
from infra.local.world import choice
from infra.local.world.generate import invent
from infra.local.world.oracle import Oracle
from infra.local.world.size import WorldSize
from infra.local.world.visitors import APPEAL, BUYS, LIKING, NOTHING, OUTSIDE, Chances, Visitors
from tests.unit.infra.local.world.conftest import Written

USERS, ITEMS, LENGTH = 600, 3000, 20


class Town:
    """A world of 3,000 items in memory, and lists of them."""

    def __init__(self) -> None:
        self.world = invent(WorldSize(users=USERS, items=ITEMS, events=0, seed=7, days=56))
        self.users = [f"u{number}" for number in range(USERS)]
        self.items = np.array([f"i{number}" for number in range(ITEMS)])
        self.oracle = Oracle(self.world, self.users, self.items.tolist())
        self.visitors = Visitors(self.oracle, np.random.default_rng(1))
        self.truth = self.oracle.matrix(self.users, self.visitors.ends)

    def lists(self, numbers: NDArray[np.int64]) -> list[list[str]]:
        return self.items[numbers].tolist()

    def best(self, noise: float = 0.0) -> list[list[str]]:
        rng = np.random.default_rng(2)
        scores = self.truth + noise * rng.standard_normal(self.truth.shape)
        return self.lists(np.argsort(-scores, axis=1)[:, :LENGTH])

    def at_random(self) -> list[list[str]]:
        return self.lists(np.random.default_rng(3).integers(0, ITEMS, (USERS, LENGTH)))

    def rates(self, lists: list[list[str]]) -> tuple[float, float]:
        """Share of the lists clicked, and bought from."""
        chances = self.visitors.chances(self.users, lists, self.visitors.ends)
        return float(chances.click.sum(axis=1).mean()), float((chances.click * chances.buy).sum(axis=1).mean())


@pytest.fixture(scope="module")
def town() -> Town:
    return Town()


def test_a_good_list_gets_the_clicks_and_purchases_that_were_calibrated(town: Town) -> None:
    clicked, bought = town.rates(town.best(noise=1.0))
    assert 0.25 < clicked < 0.40
    assert 0.03 < bought < 0.08


def test_a_better_list_gets_more(town: Town) -> None:
    best, good, poor = (town.rates(lists) for lists in (town.best(), town.best(noise=1.0), town.at_random()))
    assert best[0] > 1.04 * good[0] and good[0] > 2 * poor[0]
    assert best[1] > good[1] > 2 * poor[1]


def test_the_same_items_best_last_get_less(town: Town) -> None:
    best = town.best()
    assert town.rates([shown[::-1] for shown in best])[0] < 0.97 * town.rates(best)[0]


def test_the_further_down_the_rarer_an_item_is_clicked(town: Town) -> None:
    """One item at each place of a list of other, equal ones: its odds follow the discount alone."""
    copies = [["i7"] * LENGTH]
    click = town.visitors.chances(["u3"], copies, town.visitors.ends).click[0]
    np.testing.assert_allclose(click / click[0], 1 / np.log2(np.arange(LENGTH) + 2), rtol=1e-5)


def test_the_chances_are_those_of_the_formula(town: Town) -> None:
    """Against a loop over pairs."""
    world, user, shown = town.world, 5, [11, 2999, 64]
    at = town.visitors.ends
    at_us = round(at.timestamp() * 1_000_000)
    eye = choice.attention(world.items, world.trend, start_us=world.size.start_us, at_us=at_us)
    weights, worths = [], []
    for place, item in enumerate(shown, 1):
        liking = float(world.people.taste_end[user] @ world.items.vectors[item])
        misfit = 0.9 * ((world.people.age_years[user] - world.items.age_target[item]) / 18) ** 2
        value = LIKING * (8 * liking - misfit) + APPEAL * eye.log_weight[item]
        weights.append(np.exp(value) / np.log2(place + 1))
        price = np.log(world.items.price[item]) - 2.6
        worths.append(1 / (1 + np.exp(-(BUYS + 2.5 * liking - world.people.thrift[user] * price))))
    found = town.visitors.chances(["u5"], town.lists(np.array([shown])), at)
    np.testing.assert_allclose(found.click[0], np.array(weights) / (np.exp(OUTSIDE) + sum(weights)), rtol=1e-4)
    np.testing.assert_allclose(found.buy[0], worths, rtol=1e-4)


def test_what_is_drawn_is_as_frequent_as_it_is_likely() -> None:
    click, buy, n = np.array([0.2, 0.0, 0.5], np.float32), np.array([0.5, 1.0, 0.1], np.float32), 40_000
    drawn = Chances(np.tile(click, (n, 1)), np.tile(buy, (n, 1))).draw(np.random.default_rng(4))
    shares = np.array([(drawn.places == place).mean() for place in (0, 1, 2, NOTHING)])
    np.testing.assert_allclose(shares, [0.2, 0.0, 0.5, 0.3], atol=0.01)
    assert drawn.bought[drawn.places == 0].mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.bought[drawn.places == 2].mean() == pytest.approx(0.1, abs=0.02)
    assert not drawn.bought[~drawn.clicked].any()


def test_an_unknown_user_has_no_taste_and_goes_by_what_is_popular(town: Town) -> None:
    visitors = town.visitors
    world, at = town.world, visitors.ends
    at_us = round(at.timestamp() * 1_000_000)
    eye = choice.attention(world.items, world.trend, start_us=world.size.start_us, at_us=at_us).log_weight
    order = np.argsort(-eye)
    popular, unpopular = (town.lists(part[None])[0] for part in (order[:LENGTH], order[-LENGTH:]))
    found = visitors.chances(["nobody", "somebody else", "nobody"], [popular, popular, unpopular], at)
    np.testing.assert_array_equal(found.click[0], found.click[1])
    assert found.click[0].sum() > 2 * found.click[2].sum()


def test_lists_of_different_lengths_are_answered_together_as_alone(town: Town) -> None:
    at, best = town.visitors.ends, town.best()
    lists = [best[0], best[1][:3], []]
    together = town.visitors.chances(town.users[:3], lists, at)
    alone = town.visitors.chances(town.users[1:2], lists[1:2], at)
    np.testing.assert_allclose(together.click[1, :3], alone.click[0], rtol=1e-6)
    assert not together.click[1, 3:].any() and not together.click[2].any()
    for _ in range(20):
        assert town.visitors.respond(town.users[:3], lists, at).places[2] == NOTHING
    assert town.visitors.respond(["u1"], [[]], at).places.tolist() == [NOTHING]


def test_an_item_that_is_not_born_yet_is_not_clicked(town: Town) -> None:
    newest = int(np.argmax(town.world.items.first_seen_us))
    shown = [[str(town.items[newest])]]
    assert town.visitors.chances(["u1"], shown, town.world.size.start).click.tolist() == [[0.0]]
    assert town.visitors.chances(["u1"], shown, town.visitors.ends).click[0, 0] > 0


def test_visitors_of_a_folder_are_those_of_its_world(written: Written) -> None:
    visitors = Visitors.open(written.folder, np.random.default_rng(5))
    assert visitors.user_ids == tuple(written.users.user_id)
    assert visitors.price("i0000004") == pytest.approx(written.items.price[4])
    users, lists = written.users.user_id.tolist(), [written.items.item_id.tolist()[:10]] * 400
    drawn = [visitors.respond(users, lists, visitors.ends) for _ in range(2)]
    assert drawn[0].clicked.any() and not np.array_equal(drawn[0].places, drawn[1].places)


def test_what_cannot_be_is_told(town: Town, written: Written) -> None:
    at = town.visitors.ends
    with pytest.raises(InvalidRequest, match="no item 'i9999'"):
        town.visitors.respond(["u1"], [["i9999"]], at)
    with pytest.raises(InvalidRequest, match="2 users and 1 lists; wanted one list a user"):
        town.visitors.respond(["u1", "u2"], [["i1"]], at)
    with pytest.raises(InvalidRequest, match="has no zone"):
        town.visitors.respond(["u1"], [["i1"]], datetime(2024, 4, 10))
    with pytest.raises(DatasetNotFound, match=r"no world\.json"):
        Visitors.open(written.folder / "nothing", np.random.default_rng(6))
