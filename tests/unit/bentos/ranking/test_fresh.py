"""Candidates from what a user took just now: from the first click on, exact, with nothing consumed, and none where it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import redis.asyncio

from bentos.ranking import sources
from bentos.ranking.content import RankingSnapshot, load_content
from bentos.ranking.features import FeatureHydrator
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import UserReader
from bentos.ranking.sources import FreshSource, recent_items, why_fresh
from bentos.ranking.stages import FEATURES, RANK, RetrievalSource
from infra.cascade.batch import EMPTY, Batch
from infra.cascade.lane import Lane
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.candidates import MAX_HISTORY, ScoreMap
from infra.nearline.boards import Board
from infra.snapshots import keys
from infra.snapshots.vectors import TAKEN, VectorSearch
from tests.fixtures.nearline import did, forget, seen_of
from tests.fixtures.redis_server import new_redis
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, TinyWorld, build_tiny_snapshot, tiny_projection, tiny_world
from tests.unit.bentos.ranking.asking import Asked, ask, pinned

_NONE = np.empty(0, np.int32)


def query_of(snapshot: RankingSnapshot, user_id: str, session: list[int]) -> RankingQuery:
    return RankingQuery(snapshot, user_id, n=10, session=session, excluded=_NONE)


@pytest.fixture(scope="module")
def tasteful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A live snapshot whose vectors follow the genres: what is alike lies together."""
    plain = tiny_world()
    genres = np.zeros((300, 8), np.float32)
    for item in range(300):
        genres[item, item % 5] += 1
        genres[item, (item // 5) % 5] += 1
    world = TinyWorld(plain.user_vectors, genres + 0.1 * plain.item_vectors, plain.histories, plain.user_ids)
    server = new_redis()
    stage = Stage(tmp_path_factory.mktemp("tasteful"), server.url)
    stage.flip_live(world=world)
    yield stage
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


async def test_of_many_items_taken_since_the_batch_none_comes_back(snapshot: RankingSnapshot) -> None:
    """More than make the vector, and more than the stream's own list of what was just logged."""
    taken = [f"i{item}" for item in range(150)]
    query = query_of(snapshot, "u7", [])
    query.learn(None, seen_of("u7", *taken))
    assert sorted(query.consumed.tolist()) == list(range(150))
    assert recent_items(query) == list(range(149, 49, -1)), "the newest alone make the vector"


async def test_a_reason_names_an_item_as_it_is_called_now(tasteful: Stage) -> None:
    snapshot, client = pinned(tasteful), redis.asyncio.from_url(tasteful.redis_url)
    said = Board(now_us=1, offsets=(1,) * 16, standing={"changed_title": {"i17": "The new name"}})
    asked = await ask(snapshot, client, "nobody", board=said, n=5, context={"recent_items": ["i17"]})
    assert {why_fresh(asked.query, item) for item in asked.outcome.batch.ids.tolist()} == {"like your “The new name”"}
    await client.aclose()


async def test_a_brand_new_user_gets_a_list_of_their_own_after_the_first_click(tasteful: Stage) -> None:
    snapshot, client = pinned(tasteful), redis.asyncio.from_url(tasteful.redis_url)
    genres = snapshot.content.items.columns.genres

    def alike(asked: Asked, item: str) -> float:
        clicked = genres[snapshot.content.items.index_of[item]]
        return float((genres[asked.outcome.batch.ids] @ clicked).mean())

    before = await ask(snapshot, client, "brand new", n=10)
    assert before.outcome.decided_by == "popular"
    for item in ("i0", "i6"):  # of one genre each, and not of the same
        await did(client, f"new {item}", item)
        after = await ask(snapshot, client, f"new {item}", n=10)
        assert (after.outcome.decided_by, after.outcome.degraded) == ("fresh", False)
        assert set(after.sources.values()) == {"fresh"} and item not in after.items
        assert alike(after, item) > alike(before, item) + 0.2
        title = snapshot.content.items.titles[snapshot.content.items.index_of[item]]
        assert after.reason(after.items[0]) == f"like your “{title}”"
    await client.aclose()


async def test_they_are_the_best_by_the_vector_that_the_embedder_would_make(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    world, recent = tiny_world(), [17, 4, 250]
    projection = tiny_projection(300, 8)
    user = (world.item_vectors[recent] * projection.weights[recent, None]).sum(axis=0) / projection.scale
    products = world.item_vectors @ (user / np.linalg.norm(user))
    products[recent] = -np.inf
    best = np.argsort(-products)[:TAKEN]
    wanted, scores = ScoreMap(snapshot.manifest.score_scale).ordered(best, products[best])
    found = await FreshSource(UserReader(client, RANKING), None).find(query_of(snapshot, "nobody", recent), EMPTY)
    assert found.ids.tolist() == wanted.tolist()
    np.testing.assert_allclose(found.scores, scores.astype(np.float32), rtol=2e-3)
    assert found.columns is not None and found.columns[RANK].tolist() == list(range(TAKEN))


async def test_the_newest_first_of_session_and_stream_count_and_the_batch_s_history_does_not(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    source = FreshSource(UserReader(client, RANKING), None)
    known = query_of(snapshot, "u3", [])
    await UserReader(client, RANKING).read(known)
    assert len(known.history) and not source.applies(known)
    await did(client, "u3", "i7", "i9")
    try:
        clicked = query_of(snapshot, "u3", [20])
        await UserReader(client, RANKING).read(clicked)
        alone = query_of(snapshot, "nobody", [20, 9, 7])
        one, other = [(await source.find(query, EMPTY)).ids.tolist() for query in (clicked, alone)]
        assert [item for item in one if item not in known.history] == one
        assert [item for item in other if item not in known.history][:100] == one[:100]
    finally:
        await forget(client, "u3")


async def test_for_a_known_user_they_stand_beside_the_list_and_the_ranker_orders_all(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    asked = await ask(snapshot, client, "u3", n=290, context={"recent_items": ["i17"]})
    assert asked.query.record is not None
    listed = {f"i{item}" for item in asked.query.record.item_indices.tolist()} - {"i17"}
    assert set(asked.of("retrieval")) == listed, "where both bring an item, it is the list's"
    assert len(asked.of("fresh")) > 50 and not set(asked.of("fresh")) & listed
    assert (asked.outcome.decided_by, asked.outcome.degraded) == ("ranker", False)
    first = list(asked.sources.values())
    assert first.index("fresh") < 100, "they are mixed with the list, not put behind it"


async def test_the_ranker_is_told_their_place_among_the_fresh_ones(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    query = query_of(snapshot, "u3", [17])
    reader = UserReader(client, RANKING)
    listed = await RetrievalSource(reader).find(query, EMPTY)
    found = await FreshSource(reader, None).find(query, EMPTY)
    assert listed.columns is not None and found.columns is not None
    batch = Batch(found.ids, found.scores, np.zeros(len(found.ids), np.uint8), found.columns)
    features = (await FeatureHydrator().hydrate(query, batch))[FEATURES].astype(np.float32)
    names = ("retrieval_score", "retrieval_score_share", "retrieval_rank_log")
    score, share, rank = (features[:, RANKER_FEATURES.index(name)] for name in names)
    assert score.tolist() == found.scores.tolist()
    np.testing.assert_allclose(share, found.scores / listed.scores[0], rtol=1e-6)
    np.testing.assert_allclose(rank, np.log1p(np.arange(len(found.ids))), rtol=1e-6)


async def test_nothing_comes_back_that_was_consumed_long_ago(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    world = tiny_world()
    user = max(range(120), key=lambda at: len(world.histories[at]))
    assert len(world.histories[user]) > MAX_HISTORY, "more than a record holds"
    consumed = {f"i{item}" for item in world.histories[user].tolist()}
    asked = await ask(snapshot, client, f"u{user}", n=300, context={"recent_items": ["i17"]})
    assert asked.of("fresh") and not set(asked.items) & consumed


async def test_where_it_cannot_be_read_what_was_consumed_there_are_none_and_the_list_stays(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    world = tiny_world()
    user = f"u{max(range(120), key=lambda at: len(world.histories[at]))}"
    key = keys.consumed(RANKING, snapshot.alias.version, user)
    kept = cast(bytes, await client.get(key))
    await client.set(key, b"abc")
    try:
        asked = await ask(snapshot, client, user, n=20, context={"recent_items": ["i17"]})
    finally:
        await client.set(key, kept)
    assert set(asked.sources.values()) == {"retrieval"}
    assert (asked.outcome.decided_by, asked.outcome.degraded) == ("ranker", True)
    assert "SnapshotNotLoaded" in asked.outcome.skipped["fresh"]


async def test_of_a_search_that_fails_nothing_is_left(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LONG", 0)
    world = tiny_world()
    query = query_of(snapshot, f"u{max(range(120), key=lambda at: len(world.histories[at]))}", [17])
    reader = UserReader(client, RANKING)
    await reader.read(query)
    lane = Lane("search")
    found = await FreshSource(reader, lane).find(query, EMPTY)
    lane.close()
    assert len(found.ids) and query.older is not None
    query.older = None
    with pytest.raises(RuntimeError, match="after shutdown"):
        await FreshSource(reader, lane).find(query, EMPTY)
    assert query.older is None


async def test_a_snapshot_that_was_sealed_without_user_weights_serves_on_and_says_so_once(
    tasteful: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    version = build_tiny_snapshot(str(tasteful.root), projected=False)
    content = load_content(version, version.manifest())
    assert [record.message for record in caplog.records if "user weights" in record.message] == [
        f"{version.label} was sealed without user weights: no candidates from what a user just took."
    ]
    assert content.vectors is None
    bare = replace(pinned(tasteful), content=content)
    client = redis.asyncio.from_url(tasteful.redis_url)
    asked = await ask(bare, client, "nobody", n=5, context={"recent_items": ["i1"]})
    assert (asked.outcome.decided_by, asked.outcome.skipped) == ("popular", {})
    await client.aclose()


def test_of_a_large_catalogue_the_most_popular_are_searched_and_any_item_makes_a_vector() -> None:
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(400, 8)).astype(np.float32)
    vectors[7] = 0
    order = rng.permutation(400).astype(np.int32)
    search = VectorSearch(vectors, tiny_projection(400, 8), order=order, most=50)
    directed = [item for item in order.tolist() if item != 7]
    assert sorted(directed[:50]) == search.searched.tolist()
    user = search.user([directed[-1]])
    assert np.linalg.norm(user) == pytest.approx(1)
    ids, products = search.best(user, 20)
    wanted = search.searched[np.argsort(-(vectors[search.searched] @ user))[:20]]
    assert ids.tolist() == wanted.tolist()
    assert len(search.best(user, 1000)[0]) == 50
    assert not np.any(search.user([7]))
    again = search.best(user, 20)
    assert (again[0].tobytes(), again[1].tobytes()) == (ids.tobytes(), products.tobytes())


def test_the_item_that_an_answer_is_like_is_the_one_whose_own_taker_would_like_it_most() -> None:
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    search = VectorSearch(vectors, tiny_projection(60, 8), order=np.arange(60, dtype=np.int32))
    for to in range(20, 40):
        alone = {item: float(search.user([item]) @ vectors[to]) for item in range(10)}
        assert search.nearest(list(range(10)), to) == max(alone, key=lambda item: alone[item])
