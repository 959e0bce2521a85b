"""A request's business rules: what is denied is never shown, pins stand at their places, boosts move places; all is replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.new_items import NO_FEED_BOARD
from bentos.ranking.offline import Offline
from bentos.ranking.pinned_labels import Labels, labels_of
from bentos.ranking.rulebook import Rulebook, check_pins
from bentos.ranking.rules import not_pinned
from bentos.ranking.schema_rules import BusinessRules
from infra.contracts.candidates import MAX_HISTORY
from infra.contracts.errors import InvalidRequest
from infra.nearline.decision_archive import read_decisions
from tests.fixtures.answers import HORIZON, NAME, town
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import GENRES, tiny_world
from tests.unit.bentos.ranking.asking import Asked, ask, pinned

CONSUMED = [f"i{item}" for item in tiny_world().histories[3].tolist()]


def genres(asked: Asked) -> list[set[str]]:
    items = asked.query.snapshot.content.items
    return [set(items.genres[index]) for index in asked.outcome.batch.ids.tolist()]


def unseen(*, n: int) -> list[str]:
    """Items that u3 did not consume, the best retrieved left out."""
    world = tiny_world()
    worst = np.argsort(world.item_vectors @ world.user_vectors[3], kind="stable")
    return [f"i{item}" for item in worst.tolist() if f"i{item}" not in CONSUMED][:n]


@pytest.mark.parametrize("user", ["u3", "nobody"])
async def test_only_allowed_categories_are_shown_and_the_list_stays_long(
    user: str, snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    asked = await ask(snapshot, client, user, n=60, rules={"allow_categories": ["Music"]})
    assert len(asked.items) == 60
    assert all("Music" in found for found in genres(asked))
    because = {gone.because for gone in asked.outcome.removed if gone.by == "rules"}
    assert because == {"of no category that the request allows"}


async def test_a_catalogue_with_fewer_allowed_items_is_shown_whole(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    items = snapshot.content.items
    music = {name for name, has in zip(items.item_ids, items.genres, strict=True) if "Music" in has}
    asked = await ask(snapshot, client, "u3", n=300, rules={"allow_categories": ["Music"]})
    assert set(asked.items) == music - set(CONSUMED)


async def test_denied_categories_and_creators_are_not_shown(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    rules = {"deny_categories": ["Drama", "Comedy"], "deny_creators": ["studio 3", "studio 4"]}
    asked = await ask(snapshot, client, "u3", n=70, rules=rules)
    creators = asked.query.snapshot.content.items.creators
    assert len(asked.items) == 70
    assert not any(found & {"Drama", "Comedy"} for found in genres(asked))
    assert not {creators[index] for index in asked.outcome.batch.ids.tolist()} & {"studio 3", "studio 4"}


@pytest.mark.parametrize("user", ["u3", "nobody"])
async def test_pins_stand_at_their_places_amid_the_ranking(
    user: str, snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    first, second, third = unseen(n=3)
    plain = await ask(snapshot, client, user, n=10)
    asked = await ask(snapshot, client, user, n=10, rules={"pin": {second: 10, first: 1, third: 4}})
    assert [asked.items[at] for at in (0, 3, 9)] == [first, third, second]
    assert len(asked.items) == len(set(asked.items)) == 10
    others = [item for item in asked.items if item not in (first, second, third)]
    assert len(others) == 7
    assert others[0] == next(item for item in plain.items if item not in (first, second, third))


async def test_pins_stay_whatever_diversity_caps(snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> None:
    items = snapshot.content.items
    dramas = [name for name, has in zip(items.item_ids, items.genres, strict=True) if has == ["Drama", "Drama"]]
    pins = {item: at for at, item in enumerate([item for item in dramas if item not in CONSUMED][:5], 1)}
    asked = await ask(snapshot, client, "u3", n=5, rules={"pin": pins})
    assert asked.items == list(pins)


async def test_a_pin_that_is_consumed_excluded_or_denied_is_not_shown(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    excluded, denied = unseen(n=2)
    genre = snapshot.content.items.genres[snapshot.content.items.index_of[denied]][0]
    pin = {CONSUMED[0]: 1, excluded: 2, denied: 3, "no such item": 4}
    asked = await ask(snapshot, client, "u3", n=10, exclude=[excluded], rules={"pin": pin, "deny_categories": [genre]})
    assert len(asked.items) == 10
    assert not {*pin} & set(asked.items)
    assert not_pinned(asked.query, pin, asked.outcome) == {
        CONSUMED[0]: "consumed before the batch",
        excluded: "excluded by the request",
        denied: "of a category that the request denies",
        "no such item": "not in the catalogue",
    }


async def test_a_pin_consumed_before_the_oldest_item_of_a_full_history_is_not_shown(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    user, history = next((u, h) for u, h in enumerate(tiny_world().histories) if len(h) > MAX_HISTORY)
    oldest = f"i{history[-1]}"
    asked = await ask(snapshot, client, f"u{user}", n=10, rules={"pin": {oldest: 1}})
    assert oldest not in asked.items
    assert not_pinned(asked.query, [oldest], asked.outcome) == {oldest: "consumed long ago"}


async def test_a_boost_divides_an_item_s_place(snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> None:
    plain = (await ask(snapshot, client, "u3", n=100)).items
    twentieth, fifth = plain[19], plain[4]
    boosted = await ask(snapshot, client, "u3", n=100, rules={"boost_items": {twentieth: 4.0}})
    assert boosted.items.index(twentieth) == 5, "just after the fifth"
    assert [item for item in boosted.items if item != twentieth] == [item for item in plain if item != twentieth]
    lowered = await ask(snapshot, client, "u3", n=100, rules={"boost_items": {fifth: 0.5}})
    assert lowered.items.index(fifth) == 8, "just before the tenth"
    assert boosted.outcome.decided_by == "boost"


@pytest.mark.parametrize("user", ["u3", "nobody"])
async def test_a_boosted_category_comes_first(
    user: str, snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    plain = await ask(snapshot, client, user, n=10)
    boosted = await ask(snapshot, client, user, n=10, rules={"boost_categories": {"Nature": 10.0}})
    lowered = await ask(snapshot, client, user, n=10, rules={"boost_categories": {"Nature": 0.1}})
    counts = [sum("Nature" in found for found in genres(asked)) for asked in (lowered, plain, boosted)]
    assert counts[0] < counts[2] and counts[0] <= counts[1] <= counts[2]
    assert "Nature" in genres(boosted)[0]


def test_pins_beyond_the_list_or_at_one_place_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"rules\.pin: 'a' is at place 6; wanted 1 to n, which is 5"):
        check_pins(BusinessRules(pin={"a": 6}), n=5)
    with pytest.raises(InvalidRequest, match="'a' and 'b' are both at place 2"):
        check_pins(BusinessRules(pin={"a": 2, "b": 2}), n=5)


async def test_what_is_allowed_is_found_however_far_down_the_catalogue(snapshot: RankingSnapshot) -> None:
    content = snapshot.content
    items, labels, order = content.items, labels_of(content), np.tile(content.backfill, 40)
    rules = Rulebook(allow=frozenset({"Music"}))
    naive = [row for row in order.tolist() if "Music" in items.genres[row]]
    for n in (0, 1, 50, 5000, len(naive), len(naive) + 10):
        assert (await rules.first_allowed(labels, NO_FEED_BOARD, order, n)).tolist() == naive[:n]


_NAMES = st.sampled_from([*GENRES, "of one item", "Unheard of"])
_BOOKS = st.builds(
    Rulebook,
    allow=st.frozensets(_NAMES, max_size=3),
    deny=st.frozensets(_NAMES, max_size=3),
    deny_creators=st.frozensets(st.sampled_from(["studio 1", "studio 2", "somebody new", "nobody"])),
    boost_categories=st.dictionaries(_NAMES, st.floats(0.1, 10), max_size=4),
    boost_items=st.dictionaries(st.integers(0, 310), st.floats(0.1, 10), max_size=9),
)


@given(book=_BOOKS, rows=st.lists(st.integers(0, 309), max_size=80))
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rules_of_many_items_are_those_of_each(book: Rulebook, rows: list[int], snapshot: RankingSnapshot) -> None:
    """Also of rows that were written after the snapshot was read; the last three of them say nothing."""
    own = snapshot.content.items
    genres = [*own.genres[:300], ["of one item", "Music"], ["Drama"], ["Unheard of"], *([] for _ in range(7))]
    creators = [*own.creators[:300], "somebody new", "studio 1", None, *("studio 2" for _ in range(4)), *((None,) * 3)]
    labels = Labels(replace(own, item_ids=own.item_ids[:310], genres=genres, creators=creators), n_items=300)
    faces = np.array(rows, np.int32)
    ids = faces[::-1].copy()
    denied = dict.fromkeys(range(len(rows)), False)
    for found, _ in book.denied(labels, faces):
        denied = {at: denied[at] or bool(found[at]) for at in denied}
    factors = book.factors(labels, ids, faces).tolist()
    for at, (item, row) in enumerate(zip(ids.tolist(), rows, strict=True)):
        outside = bool(book.allow) and not book.allow & set(genres[row])
        assert denied[at] == (outside or bool(book.deny & set(genres[row])) or creators[row] in book.deny_creators)
        factor = book.boost_items.get(item, 1.0)
        for genre in dict.fromkeys(genres[row]):
            factor *= book.boost_categories.get(genre, 1.0)
        assert factors[at] == factor


def test_a_row_that_is_given_out_again_says_what_is_written_there_now(snapshot: RankingSnapshot) -> None:
    own = snapshot.content.items
    genres = [*own.genres[:300], *([] for _ in range(40))]
    creators = [*own.creators[:300], *([None] * 40)]
    labels = Labels(replace(own, item_ids=own.item_ids[:340], genres=genres, creators=creators), n_items=300)
    spare = np.arange(300, 340, dtype=np.int32)
    music, by_a = Rulebook(allow=frozenset({"Music"})), Rulebook(deny_creators=frozenset({"a"}))
    for name, creator in (("Music", "a"), ("Sport", None), ("Music", "b"), ("Drama", "a")):
        genres[300:], creators[300:] = [[name]] * 40, [creator] * 40
        labels.forget(spare.tolist())
        for row in (0, 39):
            ((outside, _),) = music.denied(labels, spare[row:])
            ((denied, _),) = by_a.denied(labels, spare[row:])
            assert set(outside.tolist()) == {name != "Music"} and set(denied.tolist()) == {creator == "a"}
        assert np.array_equal(
            labels.in_genres(np.arange(300, dtype=np.int32), ["Music"]), ["Music" in has for has in genres[:300]]
        )


def test_what_items_are_called_is_put_in_order_once_a_snapshot(stage: Stage) -> None:
    one, other = pinned(stage).content, pinned(stage).content
    assert labels_of(one) is labels_of(one)
    assert labels_of(one) is not labels_of(other)


_ITEMS = st.integers(0, 299).map(lambda item: f"i{item}")
_RULES = st.fixed_dictionaries(
    {},
    optional={
        "allow_categories": st.lists(st.sampled_from([*GENRES, "Unheard of"]), max_size=3),
        "deny_categories": st.lists(st.sampled_from(GENRES), max_size=2),
        "deny_creators": st.lists(st.integers(0, 10).map(lambda number: f"studio {number}"), max_size=3),
        "boost_categories": st.dictionaries(st.sampled_from(GENRES), st.floats(0.1, 10), max_size=3),
        "boost_items": st.dictionaries(_ITEMS, st.floats(0.1, 10), max_size=5),
        "pin": st.dictionaries(_ITEMS, st.integers(1, 20), max_size=4),
    },
)


@given(rules=_RULES, user=st.sampled_from(["u3", "u9", "nobody"]), n=st.integers(20, 150))
@hypothesis_settings(
    max_examples=sized(60, full=2000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_rules_hold_whatever_they_are_and_never_shorten_a_list_needlessly(
    rules: dict[str, object], user: str, n: int, snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    asked = await ask(snapshot, client, user, n=n, rules=rules)
    book, labels = asked.query.rules, labels_of(snapshot.content)
    shown = asked.outcome.batch.ids
    everything = np.arange(snapshot.content.n_items, dtype=np.int32)
    gone = np.zeros(len(everything), np.bool_)
    for rows, _ in book.denied(labels, everything):
        gone |= rows
    gone[asked.query.removable] = True
    gone[[] if asked.query.record is None else tiny_world().histories[int(user[1:])]] = True
    assert not gone[shown].any()
    assert len(shown) == len(set(shown.tolist())) == min(n, int((~gone).sum()))
    places = {item: at for at, item in enumerate(shown.tolist(), 1)}
    pins = sorted((place, item) for item, place in book.pins.items() if not gone[item])
    if len(shown) >= 20 and len({place for place, _ in pins}) == len(pins):
        assert [places[item] for _, item in pins] == [place for place, _ in pins]
    again = await ask(snapshot, client, user, n=n, rules=rules)
    assert again.items == asked.items


async def test_an_answer_under_rules_is_made_again_to_the_bit(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        every = {
            "allow_categories": ["Music", "Drama"],
            "deny_creators": ["studio 2"],
            "boost_categories": {"Music": 3.3},
            "boost_items": {"i7": 0.3},
            "pin": {"i10": 2, "i13": 5},
        }
        for rules in ({}, every, *({name: value} for name, value in every.items())):
            for user in ("u5", "nobody"):
                await place.ask(user, n=20, rules=rules)
        await place.archive_all()
        decisions = [entry.decision() for entry in read_decisions(place.archive)]
        replayed = [await Offline(str(place.stage.root), NAME, horizon=HORIZON).replay(one) for one in decisions]
    assert [one.compared.differences for one in replayed if not one.is_exact] == []
    assert any("rules" in one.request for one in decisions)
    assert len({one.items for one in decisions}) > 8
