"""What many take and what is new, in the feed: who sees it, where it stands, what is told of it, and a replay of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio
import redis.asyncio

from bentos.ranking.boards import NEW_TAKEN, TRENDING_TAKEN, NewItemSource, TrendingSource
from bentos.ranking.content import RankingSnapshot
from bentos.ranking.new_items import SPARE, NoSpareRow
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import UserReader
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.stages import RANK, RetrievalSource
from infra.cascade.batch import EMPTY, Batch
from infra.contracts.candidates import MAX_HISTORY, pack
from infra.contracts.errors import SnapshotNotLoaded
from infra.nearline.boards import Board
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.nearline import did, forget
from tests.fixtures.redis_server import free_port
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, tiny_world
from tests.unit.bentos.ranking.asking import ask, pinned
from tests.unit.bentos.ranking.stream import Stream

_NONE = np.empty(0, np.int32)


@pytest_asyncio.fixture
async def stream(client: redis.asyncio.Redis) -> AsyncIterator[Stream]:
    stream = Stream(client, RANKING)
    yield stream
    await stream.forget()


def cards(*items: str, **said: str) -> Board:
    """A board of new items, the first of them the newest."""
    about = {item: {name: (text,) for name, text in {"title": f"About {item}", **said}.items()} for item in items}
    newest = tuple((item, 1_700_000_000_000 - at) for at, item in enumerate(items))
    return Board(now_us=1, offsets=(1,) * 16, lists={"newest_items": newest}, about=about)


async def test_who_has_no_list_sees_what_is_trending_before_what_is_popular(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    for item, times in (("i5", 3), ("i9", 4), ("i7", 4), ("i8", 2)):
        await stream.clicked(item, times)
    asked = await ask(pinned(stage, await stream.board()), client, "nobody", n=8)
    assert asked.items[:3] == ["i7", "i9", "i5"]
    assert list(asked.sources.values()) == ["trending"] * 3 + ["popular"] * 5
    assert (asked.outcome.decided_by, asked.outcome.degraded) == ("trending", False)
    assert asked.outcome.batch.scores.tolist()[:3] == [4, 4, 3]
    assert asked.reason("i9") == "4 clicks, ratings and purchases in the last hour"
    scores = asked.outcome.batch.scores.tolist()
    assert scores == sorted(scores, reverse=True)


async def test_what_two_took_is_not_trending(stage: Stage, client: redis.asyncio.Redis, stream: Stream) -> None:
    await stream.clicked("i5", 2)
    asked = await ask(pinned(stage, await stream.board()), client, "nobody", n=8)
    assert asked.outcome.decided_by == "popular" and "trending" not in asked.outcome.stage_ms


async def test_what_a_user_just_took_goes_before_what_all_take(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    await stream.clicked("i5", 3)
    snapshot = pinned(stage, await stream.board())
    asked = await ask(snapshot, client, "nobody", n=299, context={"recent_items": ["i17"]})
    order = list(dict.fromkeys(asked.sources.values()))
    assert order[0] == "fresh" and asked.outcome.decided_by == "fresh"
    assert order in (["fresh", "popular"], ["fresh", "trending", "popular"]), "i5 may be among the fresh"


async def test_a_known_user_sees_a_handful_beside_the_list_as_if_it_came_last_there(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    for item in range(60):
        await stream.clicked(f"i{item}", 3 + item % 4)
    snapshot = pinned(stage, await stream.board())
    user = next(f"u{at}" for at, history in enumerate(tiny_world().histories) if len(history) < MAX_HISTORY)
    asked = await ask(snapshot, client, user, n=100)
    assert asked.outcome.decided_by == "ranker"
    query, record = asked.query, asked.query.record
    assert record is not None
    found = await TrendingSource().find(query, EMPTY)
    assert len(found.ids) == TRENDING_TAKEN and found.columns is not None
    assert found.columns[RANK].tolist() == list(range(100, 120))
    assert set(found.scores.tolist()) == {float(record.scores[-1])}
    assert not set(found.ids.tolist()) & set(query.consumed.tolist())
    beside = {f"i{item}" for item in found.ids.tolist()} - {f"i{item}" for item in record.item_indices.tolist()}
    assert beside and set((await ask(snapshot, client, user, n=299)).of("trending")) == beside


async def test_nothing_consumed_long_ago_comes_back_because_it_is_trending(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    world = tiny_world()
    user = max(range(120), key=lambda at: len(world.histories[at]))
    consumed = [f"i{item}" for item in world.histories[user].tolist()]
    for item in consumed:
        await stream.clicked(item, 3)
    await stream.clicked("i17", 3)
    await stream.added("n1", title="The new one")
    await stream.clicked("n1", 3)
    snapshot = pinned(stage, await stream.board())
    assert snapshot.content.shelf.current().trending.size == len(consumed) + 2 - ("i17" in consumed)
    for session in ([], ["i18"]):
        asked = await ask(snapshot, client, f"u{user}", n=299, context={"recent_items": session})
        assert not set(asked.items) & set(consumed)
        assert "n1" in asked.items


async def test_a_new_item_is_shown_with_what_is_said_of_it_and_not_again_after_a_click(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    known = pinned(stage).content.items
    creator = next(name for name in known.creators if name)
    await stream.added("n1", title="The new one", creator=creator, genres="Drama|Polka|Music")
    snapshot = pinned(stage, await stream.board())
    asked = await ask(snapshot, client, "click on new", n=10)
    assert asked.items.index("n1") == 5, "behind the fifth of the popular ones"
    assert asked.sources["n1"] == "new" and asked.reason("n1").startswith("new since 20")
    items, row = snapshot.content.items, asked.outcome.batch.ids.tolist()[5]
    assert (items.titles[row], items.genres[row], items.creators[row]) == (
        "The new one",
        ["Drama", "Polka", "Music"],
        creator,
    )
    drama = next(item for item in range(300) if set(items.genres[item]) == {"Drama"})
    assert items.columns.genres[row] @ items.columns.genres[drama] == pytest.approx(2**-0.5)
    assert items.columns.creators[row] == items.columns.creators[known.creators.index(creator)]
    assert np.isnan(items.columns.features[row]).all()
    await did(client, "click on new", "n1")
    try:
        again = await ask(snapshot, client, "click on new", n=299)
    finally:
        await forget(client, "click on new")
    assert "n1" not in again.items and len(again.items) == 299
    assert again.query.overlay == [row] and again.of("fresh") == [], "it has no vector yet"
    assert "n1" not in (await ask(snapshot, client, "nobody", n=299, exclude=["n1"])).items
    assert "n1" not in (await ask(snapshot, client, "nobody", n=299, context={"recent_items": ["n1"]})).items


async def test_the_ranker_takes_new_items_as_they_are(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    for number in range(15):
        await stream.added(f"n{number}", ago_s=100 - number, title=f"New {number}")
    asked = await ask(pinned(stage, await stream.board()), client, "u3", n=200)
    assert (asked.outcome.decided_by, asked.outcome.skipped) == ("ranker", {})
    assert sorted(asked.of("new")) == sorted(f"n{number}" for number in range(5, 15))


async def test_new_items_stand_between_the_others_where_nothing_ranks_them(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    for number in range(15):
        await stream.added(f"n{number}", ago_s=100 - number, title=f"New {number}")
    asked = await ask(pinned(stage, await stream.board()), client, "nobody", n=300)
    places = [at for at, source in enumerate(asked.sources.values()) if source == "new"]
    assert places == [5 + 11 * at for at in range(NEW_TAKEN)]
    assert asked.of("new") == [f"n{number}" for number in range(14, 4, -1)]
    few = Batch(np.arange(3, dtype=np.int32), np.array([3, 2, 1], np.float32), np.zeros(3, np.uint8))
    assert (await NewItemSource().find(asked.query, few)).scores.tolist() == [-float(at) for at in range(10)]


async def test_an_item_that_the_snapshot_has_is_not_new_and_one_without_a_title_is_not_shown(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    await stream.added("i3", title="An old one")
    await stream.clicked("a stranger", 5)
    snapshot = pinned(stage, await stream.board())
    board = snapshot.content.shelf.current()
    assert (board.newest.tolist(), board.trending.tolist(), board.rows) == ([], [], {})
    assert snapshot.content.items.titles[3] != "An old one"
    assert (await ask(snapshot, client, "nobody", n=5)).outcome.decided_by == "popular"


async def test_while_redis_is_away_the_last_board_goes_on(stage: Stage, stream: Stream) -> None:
    await stream.clicked("i5", 3)
    snapshot = pinned(stage, await stream.board())
    away = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    asked = await ask(snapshot, away, "u3", n=5)
    assert (asked.items[0], asked.outcome.decided_by, asked.outcome.degraded) == ("i5", "trending", True)
    await away.aclose()


async def test_a_replay_with_the_board_of_a_request_gives_its_list_to_the_bit(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    """In a process where other new items came before, and got the rows first."""
    for number in range(12):
        await stream.added(f"n{number}", ago_s=100 - number, title=f"New {number}", genres="Drama|Music")
        await stream.clicked(f"n{number}", 3)
        await stream.clicked(f"i{number}", 3)
    reader = await stream.board()
    here, elsewhere = pinned(stage, reader), pinned(stage)
    elsewhere.content.shelf.place(cards(*(f"other {number}" for number in range(30)), "n4", genres="Polka"))
    session = {"recent_items": ["n3", "i17"]}
    for user in ("nobody", "u3"):
        asked = await ask(here, client, user, n=299, context=session, exclude=["n4"])
        assert asked.query.board.source is reader.current
        without = await ask(elsewhere, client, user, n=299, context=session, exclude=["n4"])
        assert not {"new", "trending"} & set(without.sources.values())
        replayed = await ask(elsewhere, client, user, board=reader.current, n=299, context=session, exclude=["n4"])
        assert replayed.items == asked.items
        assert replayed.sources == asked.sources
        assert replayed.outcome.batch.scores.tobytes() == asked.outcome.batch.scores.tobytes()


def test_a_row_stays_as_it_is_while_a_board_in_use_names_it_and_is_given_out_again_then(stage: Stage) -> None:
    content = pinned(stage).content
    one = content.shelf.place(cards("n1", "n2"))
    changed = content.shelf.place(cards("n1", title="Another title"))
    assert changed.rows["n1"] not in one.rows.values()
    titles = content.items.titles
    assert (titles[one.rows["n1"]], titles[changed.rows["n1"]]) == ("About n1", "Another title")
    assert content.shelf.place(cards("n1", "n2")).rows == one.rows
    many = content.shelf.place(cards(*(f"m{number}" for number in range(SPARE - 3))))
    assert set(many.rows.values()) == set(range(300, 300 + SPARE)) - {*one.rows.values(), *changed.rows.values()}
    with pytest.raises(NoSpareRow, match="boards in use"):
        content.shelf.place(cards("one more"))
    kept = dict(one.rows)
    del many, changed
    more = content.shelf.place(cards(*(f"k{number}" for number in range(SPARE - 2)), genres="Polka"))
    assert set(more.rows.values()) == set(range(300, 300 + SPARE)) - set(kept.values())
    assert [titles[row] for row in kept.values()] == ["About n1", "About n2"]
    row = more.rows["k7"]
    assert (titles[row], content.items.genres[row]) == ("About k7", ["Polka"])
    assert not content.items.columns.genres[row].any(), "what the row said before is gone"


async def test_while_there_is_no_room_answers_go_by_the_board_before_and_say_so(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    await stream.added("n1", title="New")
    reader = await stream.board()
    snapshot = pinned(stage, reader)
    first = await ask(snapshot, client, "nobody", n=20)
    taken = snapshot.content.shelf.place(cards(*(f"m{number}" for number in range(SPARE - 1))))
    await stream.added("n2", title="Newer")
    await reader.refresh(time.time_ns() // 1000)
    second = await ask(snapshot, client, "nobody", n=20)
    assert second.items == first.items
    assert second.query.board.source is first.query.board.source is not reader.current
    del taken
    await reader.refresh(time.time_ns() // 1000)
    third = await ask(snapshot, client, "nobody", n=20)
    assert third.query.board.source is reader.current and {"n1", "n2"} <= set(third.items)


async def test_backfill_reaches_no_row_of_an_item_that_is_not_there(stage: Stage, client: redis.asyncio.Redis) -> None:
    asked = await ask(pinned(stage), client, "nobody", n=1000)
    assert sorted(asked.items) == sorted(f"i{item}" for item in range(300))


async def test_a_record_that_names_a_row_for_new_items_is_refused(
    stage: Stage, client: redis.asyncio.Redis, snapshot: RankingSnapshot
) -> None:
    query = RankingQuery.of(RecommendRequest.model_validate({"user_id": "u3"}), snapshot)
    await UserReader(client, RANKING).read(query)
    assert query.record is not None
    foreign = replace(query.record, item_indices=np.append(query.record.item_indices[:-1], np.int32(300)))
    key = keys.user_record(RANKING, snapshot.alias.version, "u3")
    kept = await client.get(key)
    await client.set(key, pack(foreign))
    try:
        with pytest.raises(SnapshotNotLoaded, match="items that the snapshot has not"):
            await RetrievalSource(UserReader(client, RANKING)).find(query, EMPTY)
        assert not query.has_candidates
    finally:
        await client.set(key, kept or b"")
