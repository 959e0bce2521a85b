"""Each stage by itself, on a real snapshot: what it finds, adds, takes out or chooses, and that it decides a list."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import redis.asyncio

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.features import FeatureHydrator, moment_of
from bentos.ranking.query import RankingQuery, known_items
from bentos.ranking.reader import UserReader
from bentos.ranking.stages import (
    FEATURES,
    RANK,
    BackfillSource,
    ConsumedFilter,
    DiversitySelector,
    ExcludedFilter,
    OlderConsumedHydrator,
    PopularSource,
    RetrievalSource,
    among,
)
from bentos.ranking.trees import RankerScorer
from infra.cascade.batch import EMPTY, Batch
from infra.catalog.features.ranking import RANKER_FEATURES, ranker_matrix
from infra.contracts.candidates import MAX_HISTORY, Float32s, Int32s, pack, unpack
from infra.contracts.errors import SnapshotNotLoaded
from infra.snapshots import keys
from tests.fixtures.nearline import seen_of
from tests.fixtures.tiny_snapshot import RANKING, TinyWorld, tiny_world
from tests.unit.bentos.ranking.asking import ask


@pytest.fixture(scope="module")
def world() -> TinyWorld:
    return tiny_world()


def asks(
    snapshot: RankingSnapshot,
    user_id: str,
    *,
    n: int = 10,
    session: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> RankingQuery:
    excluded = np.array(known_items(snapshot, exclude), np.int32)
    return RankingQuery(snapshot, user_id, n=n, session=known_items(snapshot, session), excluded=excluded)


def batch_of(ids: Int32s, scores: Float32s | None = None) -> Batch:
    falling = np.arange(len(ids), 0, -1, dtype=np.float32)
    return Batch(ids, falling if scores is None else scores, np.zeros(len(ids), np.uint8))


async def retrieved(snapshot: RankingSnapshot, client: redis.asyncio.Redis, user_id: str) -> tuple[RankingQuery, Batch]:
    query = asks(snapshot, user_id)
    found = await RetrievalSource(UserReader(client, RANKING)).find(query, EMPTY)
    return query, Batch(found.ids, found.scores, np.zeros(len(found.ids), np.uint8), dict(found.columns or {}))


async def test_retrieval_brings_the_users_stored_list_in_its_order(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis, world: TinyWorld
) -> None:
    query, batch = await retrieved(snapshot, client, "u7")
    products = world.item_vectors @ world.user_vectors[7]
    products[world.histories[7]] = -np.inf
    assert batch.ids[0] == np.argmax(products)
    assert len(batch) == 100
    assert not set(batch.ids.tolist()) & set(world.histories[7].tolist())
    assert (np.diff(batch.scores) <= 0).all()
    assert batch.columns[RANK].tolist() == list(range(100))
    assert query.has_candidates
    assert query.history.tolist() == world.histories[7][:20].tolist()


async def test_retrieval_brings_nothing_for_a_user_whom_batch_did_not_know(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    query, batch = await retrieved(snapshot, client, "nobody")
    assert len(batch) == 0
    assert not query.has_candidates


async def test_popular_goes_in_where_there_is_no_list_and_only_there(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    known, _ = await retrieved(snapshot, client, "u1")
    assert not PopularSource().applies(known)
    unknown = asks(snapshot, "nobody", n=3, session=("i1",), exclude=("i2", "i3"))
    assert PopularSource().applies(unknown)
    found = await PopularSource().find(unknown, EMPTY)
    assert found.ids.tolist() == snapshot.content.popular[:6].tolist()


async def test_consumed_takes_out_what_was_seen_in_the_session_since_the_batch_and_before_it(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    query = asks(snapshot, "u1", session=("i5",))
    await UserReader(client, RANKING).read(query)
    record = query.record
    assert record is not None
    query.learn(record, seen_of("u1", "i9"))
    before = int(record.history[0])
    removals = await ConsumedFilter().remove(query, batch_of(np.array([5, 9, before, 299], np.int32)))
    told = {removal.because: removal.rows.tolist() for removal in removals}
    assert told == {
        "consumed in this session": [True, False, False, False],
        "consumed since the batch": [False, True, False, False],
        "consumed before the batch": [False, False, True, False],
    }


def test_consumed_leaves_a_snapshot_alone_that_was_built_to_include_what_was_seen(snapshot: RankingSnapshot) -> None:
    including = replace(snapshot, manifest=replace(snapshot.manifest, include_seen=True))
    assert not ConsumedFilter().applies(asks(including, "u1", session=("i5",)))
    assert ConsumedFilter().applies(asks(snapshot, "u1", session=("i5",)))


async def test_excluded_takes_out_what_the_request_names_and_knows(snapshot: RankingSnapshot) -> None:
    query = asks(snapshot, "u1", exclude=("i3", "no such item"))
    (removal,) = await ExcludedFilter().remove(query, batch_of(np.array([2, 3, 4], np.int32)))
    assert removal.rows.tolist() == [False, True, False]
    assert not ExcludedFilter().applies(asks(snapshot, "u1", exclude=("no such item",)))


def test_among_says_the_same_for_few_items_and_for_many() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 500, 1000).astype(np.int32)
    for n in (0, 1, 64, 65, 300):
        items = rng.integers(0, 500, n).astype(np.int32)
        assert among(ids, items).tolist() == [item in set(items.tolist()) for item in ids.tolist()]


async def test_features_are_those_of_training_bit_for_bit_and_survive_a_filter(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    query, batch = await retrieved(snapshot, client, "u3")
    rows = np.arange(len(batch)) % 3 != 0
    kept = batch.take(rows)
    columns = await FeatureHydrator().hydrate(query, kept)
    record = query.record
    assert record is not None
    whole = ranker_matrix(
        record.features,
        snapshot.content.items.columns,
        item_indices=record.item_indices,
        scores=record.scores,
        ranks=np.arange(len(record.item_indices), dtype=np.int32),
        best_score=float(record.scores[0]),
        history=record.history,
        moment=moment_of(query),
    )
    assert columns[FEATURES].dtype == np.float32
    assert columns[FEATURES].shape == (int(rows.sum()), len(RANKER_FEATURES))
    assert columns[FEATURES].tobytes() == whole[rows].tobytes()


async def test_the_ranker_scores_every_candidate_as_the_booster_alone_does(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    query, batch = await retrieved(snapshot, client, "u3")
    columns = await FeatureHydrator().hydrate(query, batch)
    batch = replace(batch, columns={**batch.columns, **columns})
    scores = await RankerScorer(None).score(query, batch)
    alone = snapshot.content.ranker.inplace_predict(columns[FEATURES])
    assert scores.tobytes() == np.asarray(alone, np.float32).tobytes()
    assert len(set(scores.tolist())) > 1
    with pytest.raises(KeyError):
        await RankerScorer(None).score(query, replace(batch, columns={}))


async def test_backfill_fills_to_n_below_what_is_there_with_nothing_consumed_or_excluded(
    snapshot: RankingSnapshot,
) -> None:
    first = [f"i{item}" for item in snapshot.content.popular[:3].tolist()]
    query = asks(snapshot, "nobody", n=5, session=(first[0],), exclude=(first[1],))
    batch = batch_of(snapshot.content.popular[2:4], np.array([0.7, 0.5], np.float32))
    found = await BackfillSource().find(query, batch)
    assert found.ids.tolist() == snapshot.content.popular[4:7].tolist()
    assert found.scores.tolist() == [-0.5, -1.5, -2.5]


async def test_backfill_reaches_the_whole_catalogue_and_ends_there(snapshot: RankingSnapshot) -> None:
    query = asks(snapshot, "nobody", n=1000, session=("i1", "i2"))
    found = await BackfillSource().find(query, EMPTY)
    assert sorted(found.ids.tolist()) == [item for item in range(300) if item not in (1, 2)]


async def test_backfill_brings_nothing_back_however_long_ago_it_was_consumed(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis, world: TinyWorld
) -> None:
    reader = UserReader(client, RANKING)
    user = max(range(120), key=lambda at: len(world.histories[at]))
    assert len(world.histories[user]) > MAX_HISTORY, "more than a record holds"
    query = asks(snapshot, f"u{user}", n=300)
    await reader.read(query)
    assert query.may_have_older and OlderConsumedHydrator(reader).applies(query)
    assert len((await BackfillSource().find(query, EMPTY)).ids) == 0, "not known what was consumed earlier: nothing"
    await OlderConsumedHydrator(reader).hydrate(query, EMPTY)
    found = (await BackfillSource().find(query, EMPTY)).ids.tolist()
    assert sorted(found) == sorted(set(range(300)) - set(world.histories[user].tolist()))


async def test_a_full_history_without_a_list_gets_popular_items_but_none_consumed_long_ago(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis, world: TinyWorld
) -> None:
    user = max(range(120), key=lambda at: len(world.histories[at]))
    key = keys.user_record(snapshot.manifest.application, snapshot.alias.version, f"u{user}")
    kept = cast("bytes", await client.get(key))
    record = unpack(kept)
    try:
        await client.set(key, pack(replace(record, item_indices=record.item_indices[:0], scores=record.scores[:0])))
        asked = await ask(snapshot, client, f"u{user}", n=100)
        consumed = {f"i{item}" for item in world.histories[user].tolist()}
        popular = [f"i{item}" for item in snapshot.content.backfill.tolist()]
        assert consumed & set(popular[:100]), "or this shows nothing"
        assert asked.items == [item for item in popular if item not in consumed][:100]
    finally:
        await client.set(key, kept)


async def test_what_was_consumed_earlier_is_not_read_where_the_list_is_long_enough(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis, world: TinyWorld
) -> None:
    reader = UserReader(client, RANKING)
    user = max(range(120), key=lambda at: len(world.histories[at]))
    query = asks(snapshot, f"u{user}", n=100)
    await reader.read(query)
    assert not OlderConsumedHydrator(reader).applies(query)
    short = asks(snapshot, f"u{user}", n=100, exclude=("i0",))
    await reader.read(short)
    assert OlderConsumedHydrator(reader).applies(short)
    await OlderConsumedHydrator(reader).hydrate(short, batch_of(np.arange(100, dtype=np.int32)))
    assert short.older is None, "the filters left enough"


async def test_consumed_items_of_another_snapshot_are_refused(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    query = asks(snapshot, "u1")
    key = keys.consumed(snapshot.manifest.application, snapshot.alias.version, "u1")
    kept = await client.get(key)
    try:
        for wrong in (np.array([300], "<i4").tobytes(), b"abc"):
            await client.set(key, wrong)
            with pytest.raises(SnapshotNotLoaded, match="consumed items"):
                await UserReader(client, RANKING).older(query)
    finally:
        await (client.set(key, kept) if kept is not None else client.delete(key))


async def test_diversity_gives_a_genre_and_a_creator_their_share_and_no_more(snapshot: RankingSnapshot) -> None:
    items = snapshot.content.items
    drama = [item for item in range(300) if "Drama" in items.genres[item]]
    rest = [item for item in range(300) if "Drama" not in items.genres[item]]
    batch = batch_of(np.array([*drama[:60], *rest], np.int32))
    rule = DiversitySelector(genre_share_fraction=0.5, creator_share_fraction=0.25)
    chosen = batch.ids[await rule.select(asks(snapshot, "u1", n=10), batch)].tolist()
    assert len(chosen) == 10
    assert chosen[0] == drama[0]
    assert sum("Drama" in items.genres[item] for item in chosen) == 5
    creators = [items.creators[item] for item in chosen if items.creators[item]]
    assert max(creators.count(name) for name in creators) <= 3
    assert chosen != batch.ids[:10].tolist()


async def test_diversity_is_the_greedy_rule_of_a_naive_oracle(snapshot: RankingSnapshot) -> None:
    items = snapshot.content.items
    rng = np.random.default_rng(5)
    for _ in range(20):
        batch = batch_of(rng.permutation(300)[:200].astype(np.int32), rng.normal(size=200).round(1).astype(np.float32))
        n = int(rng.integers(1, 60))
        rule = DiversitySelector(genre_share_fraction=0.4, creator_share_fraction=0.1)
        seen = batch.ids[await rule.select(asks(snapshot, "u1", n=n), batch)].tolist()
        order = sorted(range(200), key=lambda row: (-batch.scores[row], row))
        genres: dict[str, int] = {}
        creators: dict[str | None, int] = {}
        taken: list[int] = []
        for row in order:
            item = int(batch.ids[row])
            mine, maker = set(items.genres[item]), items.creators[item]
            crowded = any(genres.get(name, 0) >= np.ceil(0.4 * n) for name in mine)
            if len(taken) < n and not crowded and (maker is None or creators.get(maker, 0) < np.ceil(0.1 * n)):
                taken.append(row)
                creators[maker] = creators.get(maker, 0) + 1
                for name in mine:
                    genres[name] = genres.get(name, 0) + 1
        taken += [row for row in order if row not in taken][: n - len(taken)]
        assert seen == [int(batch.ids[row]) for row in sorted(taken, key=order.index)]


async def test_diversity_never_shortens_a_list_of_one_genre(snapshot: RankingSnapshot) -> None:
    alike = [item for item in range(300) if snapshot.content.items.genres[item] == ["Drama", "Drama"]]
    batch = batch_of(np.array(alike, np.int32))
    rule = DiversitySelector(genre_share_fraction=0.1, creator_share_fraction=0.1)
    assert (await rule.select(asks(snapshot, "u1", n=8), batch)).tolist() == list(range(8))


async def test_requests_that_wait_together_share_round_trips_and_each_gets_its_own(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis, world: TinyWorld
) -> None:
    reader = UserReader(client, RANKING)
    calls_before = (await client.info("commandstats"))["cmdstat_get"]["calls"]
    queries = [asks(snapshot, f"u{at % 130}") for at in range(400)]
    await asyncio.gather(*(reader.read(query) for query in queries))
    assert (await client.info("commandstats"))["cmdstat_get"]["calls"] - calls_before == 400
    assert len(await client.client_list()) <= 4
    for at, query in enumerate(queries):
        user = at % 130
        seen = query.consumed.tolist()
        assert seen == (world.histories[user][:20].tolist() if user < 120 else [])


async def test_a_request_that_gives_up_takes_nothing_from_those_that_wait_with_it(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis, world: TinyWorld
) -> None:
    reader = UserReader(client, RANKING)
    queries = [asks(snapshot, f"u{at}") for at in range(60)]
    tasks = [asyncio.create_task(reader.read(query)) for query in queries]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for at, (query, result) in enumerate(zip(queries, ended, strict=True)):
        if at % 3:
            assert result is None
            assert query.consumed.tolist() == world.histories[at][:20].tolist()
        else:
            assert isinstance(result, asyncio.CancelledError)
