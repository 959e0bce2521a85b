"""What is said of a snapshot's items in the feed: none that is not available is shown, others go by what they are called now."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
import redis.asyncio

from bentos.ranking import new_items
from bentos.ranking.new_items import SPARE
from bentos.ranking.recommender import Reasons
from infra.nearline.boards import Board
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING
from tests.unit.bentos.ranking.asking import ask, pinned
from tests.unit.bentos.ranking.stream import Stream
from tests.unit.infra.nearline.test_standing_boards import changed

EVERY = [f"i{item}" for item in range(300)]


@pytest_asyncio.fixture
async def stream(client: redis.asyncio.Redis) -> AsyncIterator[Stream]:
    stream = Stream(client, RANKING)
    yield stream
    await stream.forget()


def standing(**features: dict[str, str]) -> Board:
    return Board(now_us=1, offsets=(1,) * 16, standing=features)


async def test_what_is_not_available_no_source_brings_and_the_list_is_filled_up(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    """Of 300 items 10 are left: retrieved, fresh, popular, trending, new and back-fill have all others."""
    for item in EVERY[:40]:
        await stream.clicked(item, 3)
    await stream.added("n1", title="New")
    await stream.added("n2", title="New too")
    await stream.happened(*(changed(item, available=0) for item in [*EVERY[:290], "n1"]))
    snapshot = pinned(stage, await stream.board())
    left = {*EVERY[290:], "n2"}
    for user in ("nobody", "u3"):
        for session in ([], ["i17"]):
            asked = await ask(snapshot, client, user, n=300, context={"recent_items": session})
            assert set(asked.items) == left - {
                asked.query.snapshot.content.items.item_ids[i] for i in asked.query.consumed
            }


async def test_each_is_removed_with_its_reason_and_comes_back_when_it_is_available_again(
    stage: Stage, client: redis.asyncio.Redis, stream: Stream
) -> None:
    reader = await stream.board()
    snapshot = pinned(stage, reader)
    before = await ask(snapshot, client, "u3", n=10)
    assert "available" not in before.outcome.stage_ms
    gone = before.items[0]
    await stream.happened(changed(gone, available=0))
    await reader.refresh(1)
    asked = await ask(snapshot, client, "u3", n=10)
    assert gone not in asked.items and len(asked.items) == 10
    (removed,) = [one for one in asked.outcome.removed if one.because == "not available"]
    assert [snapshot.content.items.item_ids[at] for at in removed.ids] == [gone]
    await stream.happened(changed(gone, ago_s=0, available=1))
    await reader.refresh(2)
    assert (await ask(snapshot, client, "u3", n=10)).items == before.items


def test_a_changed_item_has_a_face_of_its_own_and_the_snapshots_row_stays(stage: Stage) -> None:
    content = pinned(stage).content
    items, shelf = content.items, content.shelf
    title, creator, genres = items.titles[5], items.creators[5], items.genres[5]
    board = shelf.place(
        standing(changed_title={"i5": "Another", "stranger": "X"}, changed_genres={"i5": "Polka|Drama"})
    )
    face = board.face(5)
    assert face >= 300 and (items.titles[face], items.genres[face]) == ("Another", ["Polka", "Drama"])
    assert (items.item_ids[face], items.creators[face]) == ("i5", creator)
    assert len(content.item_genres[face]) == 2
    assert (items.titles[5], items.genres[5]) == (title, genres)
    assert board.faces_of(np.array([4, 5], np.int32)).tolist() == [4, face]
    assert shelf.place(Board()).face(5) == 5
    same = shelf.place(standing(changed_title={"i5": title}))
    assert same.faces is None, "it is called so already"


def test_what_is_said_of_a_new_item_later_is_on_its_row(stage: Stage) -> None:
    content = pinned(stage).content
    said = Board(
        now_us=1,
        offsets=(1,) * 16,
        lists={"newest_items": (("n1", 9), ("n2", 8))},
        about={"n1": {"title": ("One",), "genres": ("Drama",)}, "n2": {"title": ("Two",)}},
        standing={"changed_title": {"n1": "Uno"}, "unavailable": {"n1": "0"}},
    )
    board = content.shelf.place(said)
    row = board.rows["n1"]
    assert (content.items.titles[row], content.items.genres[row]) == ("Uno", ["Drama"])
    assert board.available(np.array([row, board.rows["n2"], 3], np.int32)).tolist() == [False, True, True]


def test_another_board_with_the_same_standing_costs_nothing(stage: Stage) -> None:
    content = pinned(stage).content
    said = standing(changed_title={item: f"T {item}" for item in EVERY}, unavailable={"i3": "0"})
    one = content.shelf.place(said)
    two = content.shelf.place(Board(now_us=2, offsets=(2,) * 16, standing=said.standing))
    assert one.faces is two.faces and one.unavailable is two.unavailable


def test_however_often_items_change_they_go_by_their_last_names(stage: Stage) -> None:
    """Three times as many names as there are rows; a request that began with the first board goes on with it."""
    content = pinned(stage).content
    titles, every = content.items.titles, np.arange(300, dtype=np.int32)
    begun = content.shelf.place(standing(changed_title={item: f"first {item}" for item in EVERY}))
    for turn in range(3 * SPARE // 300):
        last = content.shelf.place(standing(changed_title={item: f"{turn} {item}" for item in EVERY}))
        assert [titles[row] for row in last.faces_of(every)] == [f"{turn} {item}" for item in EVERY]
    assert [titles[row] for row in begun.faces_of(every)] == [f"first {item}" for item in EVERY]


def test_of_too_many_changes_a_replay_shows_the_same_ones(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_items, "MOST_CHANGED", 5)
    live, again = pinned(stage).content, pinned(stage).content
    said = {item: f"T {item}" for item in EVERY[:9]}
    for many in range(1, 10):
        board = standing(changed_title=dict(list(said.items())[-many:]))
        shown = live.shelf.place(board)
    assert shown.faces is not None and again.shelf.place(board).faces is not None
    every = np.arange(300, dtype=np.int32)
    names = [
        [content.items.titles[row] for row in content.shelf.place(board).faces_of(every)] for content in (live, again)
    ]
    assert names[0] == names[1]
    assert [item for item, name in zip(EVERY, names[0], strict=True) if name == f"T {item}"] == EVERY[:5]
    fewer = live.shelf.place(standing(changed_title={"i7": "T i7"}))
    assert live.items.titles[fewer.face(7)] == "T i7", "there is room for it now"


async def test_rules_go_by_what_a_row_says_when_it_was_given_out_again(
    stage: Stage, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_items, "SPARE", 2)
    snapshot = pinned(stage)
    for turn in range(5):
        genre = f"G{turn % 2}"
        said = standing(changed_genres={"i17": genre}, changed_creator={"i17": f"by {genre}"})
        for rule, denied in (("deny_categories", genre), ("deny_creators", f"by {genre}")):
            asked = await ask(snapshot, client, "nobody", board=said, n=300, rules={rule: [denied]})
            assert "i17" not in asked.items and len(asked.items) == 299
            asked = await ask(snapshot, client, "nobody", board=said, n=300, rules={rule: ["another"]})
            assert "i17" in asked.items
        del asked


async def test_a_replay_goes_by_what_stood_then(stage: Stage, client: redis.asyncio.Redis, stream: Stream) -> None:
    reader = await stream.board()
    here, elsewhere = pinned(stage, reader), pinned(stage)
    first = await ask(here, client, "u3", n=20)
    await stream.happened(
        *(changed(item, available=0) for item in first.items[:5]),
        *(changed(item, genres="Polka", creator="one studio") for item in EVERY),
    )
    await reader.refresh(1)
    asked = await ask(here, client, "u3", n=20)
    assert not set(asked.items) & set(first.items[:5])
    elsewhere.content.shelf.place(standing(changed_title=dict.fromkeys(EVERY, "else"), unavailable={"i9": "0"}))
    replayed = await ask(elsewhere, client, "u3", board=reader.current, n=20)
    assert replayed.items == asked.items
    assert replayed.outcome.batch.scores.tobytes() == asked.outcome.batch.scores.tobytes()
    back = await ask(elsewhere, client, "u3", board=first.query.board.source, n=20)
    assert back.items == first.items


async def test_reasons_go_by_the_new_names(stage: Stage, client: redis.asyncio.Redis) -> None:
    """Everything is by one studio now, and has another title."""
    said = standing(
        changed_creator=dict.fromkeys(EVERY, "one studio"), changed_title={item: f"T {item}" for item in EVERY}
    )
    asked = await ask(pinned(stage), client, "u3", board=said, n=5)
    reasons = [Reasons(asked.query).of(item, source="retrieval") for item in asked.outcome.batch.ids.tolist()]
    titles = {f"T i{item}" for item in asked.query.history.tolist()}
    assert titles and all(any(f"“{title}”" in reason for title in titles) for reason in reasons)


async def test_diversity_goes_by_the_new_genres(stage: Stage, client: redis.asyncio.Redis, stream: Stream) -> None:
    """At most half of a list is of one genre: of 15 that were shown and are Polka now, 10 stay."""
    before = await ask(pinned(stage), client, "u3", n=20)
    polka = before.items[:15]
    await stream.happened(*(changed(item, genres="Polka") for item in polka))
    asked = await ask(pinned(stage, await stream.board()), client, "u3", n=20)
    assert [item for item in asked.items if item in polka] == polka[:10]
    assert len(asked.items) == 20
