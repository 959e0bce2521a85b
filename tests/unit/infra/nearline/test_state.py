"""The nearline state in Redis: a claim fences whoever held the shard before, and an apply is all or nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import pytest_asyncio
import redis

from infra.contracts.errors import DependencyUnavailable
from infra.nearline import state as state_module
from infra.nearline.state import Changes, Claim, Fenced
from infra.snapshots import keys
from tests.fixtures.lossy_redis import LossyRedis
from tests.fixtures.nearline_shop import SHOP, Shop
from tests.fixtures.redis_memory import Memory, remembered
from tests.fixtures.redis_server import RedisProcess, new_redis

SHARD = 3
Halves = tuple[tuple[bool, Sequence[str | int]], tuple[bool, Sequence[str | int]]]
U1, U2 = ("user", "u1"), ("user", "u2")


def changes(after: int, upto: int, **more: int) -> Changes:
    """`+` fields begin with plus_ here, `^` fields with top_."""
    deltas = {name.replace("plus_", "+c:").replace("top_", "^c:"): amount for name, amount in more.items()}
    return Changes(after, upto, {U1: deltas} if deltas else {})


async def applied(shop: Shop, claim: Claim, change: Changes) -> Fenced | None:
    return (await shop.store.apply({claim.shard: claim}, {claim.shard: change}))[claim.shard]


async def state(shop: Shop, entity: tuple[str, str] = U1) -> dict[str, int]:
    return (await shop.store.read([(*entity, SHARD)]))[0]


def all_of(shop: Shop) -> Memory:
    with redis.Redis.from_url(shop.url) as client:
        return remembered(client)


async def test_each_claim_raises_the_epoch_and_begins_where_the_last_one_ended(shop: Shop) -> None:
    first = await shop.claimed(SHARD, "a")
    assert first == Claim(SHARD, 1, 0)
    assert await applied(shop, first, changes(0, 7)) is None
    assert await shop.store.claim(SHARD, "a") == Claim(SHARD, 2, 7)
    assert (await shop.store.offsets())[SHARD] == 7


async def test_a_claim_held_by_another_is_refused_until_it_lapses_and_fences_him_then(shop: Shop) -> None:
    patient = shop.state_store(lease_s=3600)
    held = await patient.claim(SHARD, "a")
    assert held is not None and await shop.store.claim(SHARD, "b") is None
    assert await shop.store.renew([held]) == [True]  # now it lasts as long as this store's claims do
    taken = await shop.claimed(SHARD, "b")
    assert taken.epoch == held.epoch + 1
    assert await patient.renew([held]) == [False]
    before = all_of(shop)
    assert isinstance(await applied(shop, held, changes(0, 1, plus_a=1)), Fenced)
    assert all_of(shop) == before


async def test_a_claim_that_is_used_lasts_on(shop: Shop) -> None:
    position = keys.nearline_position(SHOP, SHARD)
    claim = await shop.claimed(SHARD, "a")
    for upto in (1, 2):
        before = int(await shop.client.hget(position, "until") or 0)
        while int(await shop.client.hget(position, "until") or 0) <= before:
            if upto == 1:
                assert await shop.store.renew([claim]) == [True]
            else:
                offset = (await shop.store.offsets())[SHARD]
                assert await applied(shop, claim, changes(offset, offset + 1)) is None


async def test_a_released_shard_is_free_at_once_and_only_its_holder_can_release_it(shop: Shop) -> None:
    patient = shop.state_store(lease_s=3600)
    held = await patient.claim(SHARD, "a")
    assert held is not None
    await patient.release([held])
    taken = await patient.claim(SHARD, "b")
    assert taken is not None
    await patient.release([held])
    assert await patient.claim(SHARD, "c") is None
    assert await applied(shop, taken, changes(0, 1)) is None


async def test_an_apply_adds_raises_and_moves_the_offset(shop: Shop) -> None:
    claim = await shop.claimed(SHARD, "a")
    assert await applied(shop, claim, changes(0, 5, plus_a=3, top_b=10, top_c=10)) is None
    assert await applied(shop, claim, changes(5, 9, plus_a=-1, top_b=9, top_c=11, plus_d=1)) is None
    assert await state(shop) == {"+c:a": 2, "^c:b": 10, "^c:c": 11, "+c:d": 1}
    assert (await shop.store.offsets())[SHARD] == 9


@pytest.mark.parametrize(("epoch", "after"), [(-1, 0), (1, 0), (0, 4), (0, 6)])
async def test_what_is_fenced_writes_nothing_at_all(shop: Shop, epoch: int, after: int) -> None:
    claim = await shop.claimed(SHARD, "a")
    change = Changes(0, 5, {U1: {"+c:a": 1}}, seen=((True, ["x", 5]), (False, ())))
    assert await applied(shop, claim, change) is None
    before = all_of(shop)
    wrong = Claim(SHARD, claim.epoch + epoch, after or 5)
    late = Changes(
        after or 5, 50, {U1: {"+c:a": 1}, U2: {"^c:b": 7}}, {U1: ["+c:a", 1]}, ((True, ["y", 50]), (True, ["z", 50]))
    )
    fenced = await applied(shop, wrong, late)
    assert f"epoch {claim.epoch}, offset 5" in str(fenced)
    assert all_of(shop) == before


async def test_one_shard_is_fenced_and_the_others_are_applied(shop: Shop) -> None:
    claims = {shard: await shop.claimed(shard, "a") for shard in range(3)}
    await shop.claimed(1, "a")
    outcome = await shop.store.apply(claims, {shard: changes(0, 2, plus_a=1) for shard in claims})
    assert [isinstance(fenced, Fenced) for fenced in outcome.values()] == [False, True, False]
    found = await shop.store.read([(*U1, shard) for shard in claims])
    assert found == [{"+c:a": 1}, {}, {"+c:a": 1}]


@pytest.mark.parametrize("amount", [10**14, 2**53 - 1, 2**53 + 1, -(2**53) - 1, 2**62 + 1])
async def test_large_amounts_are_added_exactly(shop: Shop, amount: int) -> None:
    claim = await shop.claimed(SHARD, "a")
    assert await applied(shop, claim, changes(0, 1, plus_a=amount)) is None
    assert await applied(shop, claim, changes(1, 2, plus_a=1)) is None
    assert await state(shop) == {"+c:a": amount + 1}


async def test_a_stale_field_goes_unless_it_has_changed_since(shop: Shop) -> None:
    claim = await shop.claimed(SHARD, "a")
    assert await applied(shop, claim, changes(0, 1, plus_a=1, plus_b=2, top_c=3, top_d=4)) is None
    stale: dict[tuple[str, str], list[str | int]] = {U1: ["+c:a", 1, "+c:b", 1, "^c:c", 3, "^c:d", 3, "+c:unknown", 5]}
    assert await applied(shop, claim, Changes(1, 2, {U2: {"+c:x": 1}}, stale)) is None
    assert await state(shop) == {"+c:b": 2, "^c:d": 4}
    again = Changes(2, 3, {U1: {"+c:b": 5}}, {U1: ["+c:b", 2]})
    assert await applied(shop, claim, again) is None
    assert await state(shop) == {"+c:b": 5, "^c:d": 4}, "first dropped, then added to"


async def test_a_stale_value_is_told_from_its_neighbour_however_large_it_is(shop: Shop) -> None:
    claim = await shop.claimed(SHARD, "a")
    assert await applied(shop, claim, changes(0, 1, plus_a=2**60 + 1, plus_b=2**60 + 1)) is None
    stale: dict[tuple[str, str], list[str | int]] = {U1: ["+c:a", 2**60, "+c:b", 2**60 + 1]}
    assert await applied(shop, claim, Changes(1, 2, {}, stale)) is None
    assert await state(shop) == {"+c:a": 2**60 + 1}


async def test_one_apply_changes_more_fields_than_a_call_in_lua_takes_arguments(shop: Shop) -> None:
    claim = await shop.claimed(SHARD, "a")
    wanted = {f"{sign}c:{number}": number for number in range(1, 10_001) for sign in "+^"}
    assert await applied(shop, claim, Changes(0, 1, {U1: dict(wanted), U2: {"+c:a": 1}})) is None
    assert await applied(shop, claim, Changes(1, 2, {U2: {"+c:a": 1}, U1: dict(wanted)})) is None
    assert await state(shop) == {name: amount * (2 if name[0] == "+" else 1) for name, amount in wanted.items()}
    assert await state(shop, U2) == {"+c:a": 2}


async def test_what_was_seen_is_remembered_in_either_half_until_its_turn_comes_again(shop: Shop) -> None:
    claim = await shop.claimed(SHARD, "a")
    halves: list[Halves] = [
        ((False, ["x", 1, "y", 2]), (False, ())),
        ((False, ()), (True, ["x", 11])),
        ((True, ["z", 21]), (False, ())),
    ]
    found = []
    for turn, seen in enumerate(halves):
        assert await applied(shop, claim, Changes(turn, turn + 1, {}, seen=seen)) is None
        found.append(await shop.store.seen(SHARD, ["x", "y", "z"]))
    assert found == [[1, 2, 0], [11, 2, 0], [11, 0, 21]]


async def test_an_apply_whose_answer_is_lost_was_applied_and_cannot_be_applied_again(shop: Shop) -> None:
    claim = await shop.claimed(SHARD, "a")
    async with LossyRedis(shop.url) as lossy:
        store = shop.state_store(lossy.url)
        lossy.lose_answer_to(state_module._APPLY.sha)
        with pytest.raises(DependencyUnavailable, match="nearline state does not answer"):
            await store.apply({SHARD: claim}, {SHARD: changes(0, 1, plus_a=1)})
        while (await shop.store.offsets())[SHARD] != 1:
            await asyncio.sleep(0.01)
        again = await store.apply({SHARD: claim}, {SHARD: changes(0, 1, plus_a=1)})
        assert isinstance(again[SHARD], Fenced)
    assert await state(shop) == {"+c:a": 1}


@pytest.fixture
def small_redis() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest_asyncio.fixture
async def cramped(small_redis: RedisProcess) -> AsyncIterator[Shop]:
    shop = Shop(small_redis.url)
    yield shop
    await shop.client.config_set("maxmemory", 0)
    await shop.close()


async def test_with_memory_full_nothing_is_written_and_the_offset_stays(cramped: Shop) -> None:
    claim = await cramped.claimed(SHARD, "a")
    assert await applied(cramped, claim, changes(0, 1, plus_a=1)) is None
    before = all_of(cramped)
    await cramped.client.config_set("maxmemory", 1)
    with pytest.raises(DependencyUnavailable, match="OutOfMemory"):
        await applied(cramped, claim, changes(1, 2, plus_a=1))
    assert all_of(cramped) == before
    await cramped.client.config_set("maxmemory", 0)
    assert await applied(cramped, claim, changes(1, 2, plus_a=1)) is None
    assert await state(cramped) == {"+c:a": 2}


async def test_a_redis_that_is_away_is_said_to_be(own_redis: RedisProcess) -> None:
    shop = Shop(own_redis.url)
    claim = await shop.claimed(SHARD, "a")
    own_redis.kill()
    for call in (shop.store.claim(SHARD, "a"), shop.store.offsets(), shop.store.seen(SHARD, ["x"])):
        with pytest.raises(DependencyUnavailable, match="nearline state does not answer"):
            await call
    with pytest.raises(DependencyUnavailable):
        await applied(shop, claim, changes(0, 1))
    own_redis.start()
    assert await applied(shop, claim, changes(0, 1)) is None
    await shop.close()
