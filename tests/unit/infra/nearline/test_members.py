"""Workers share the shards: each shard belongs to exactly one of the living, and a dead one's go to the others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS
from infra.nearline.members import Members, share_of
from infra.snapshots.connection import serving_client
from tests.fixtures.nearline_shop import SHOP, Shop
from tests.fixtures.redis_server import free_port

ALL = set(range(SHARDS))


def member(shop: Shop, name: str, *, lease_s: float = 3600) -> Members:
    return Members(shop.client, SHOP, name, lease_s=lease_s)


@given(names=st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=20))
def test_each_shard_belongs_to_exactly_one_and_nobody_has_two_more_than_another(names: set[str]) -> None:
    shares = [share_of(name, list(names)) for name in names]
    assert sorted(shard for share in shares for shard in share) == sorted(ALL)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


async def test_who_is_alone_has_all_shards_and_two_share_them_once_both_have_spoken(shop: Shop) -> None:
    a, b = member(shop, "a"), member(shop, "b")
    assert await a.share() == ALL
    assert await b.share() == ALL - await a.share()
    assert len(await a.share()) == SHARDS // 2


async def test_who_leaves_leaves_his_shards(shop: Shop) -> None:
    a, b = member(shop, "a"), member(shop, "b")
    await b.share()
    assert len(await a.share()) == SHARDS // 2
    await b.leave()
    assert await a.share() == ALL


async def test_who_says_nothing_for_a_lease_is_taken_for_dead(shop: Shop) -> None:
    a, b = member(shop, "a"), member(shop, "b", lease_s=0.3)
    await b.share()
    while await a.share() != ALL:
        await asyncio.sleep(0.01)
    await b.share()
    assert len(await a.share()) == SHARDS // 2, "and is back as soon as he speaks"


async def test_the_living_can_be_counted_with_memory_full(shop: Shop) -> None:
    await shop.client.config_set("maxmemory", 1)
    try:
        assert await member(shop, "a").share() == ALL
    finally:
        await shop.client.config_set("maxmemory", 0)


async def test_a_redis_that_is_away_is_said_to_be() -> None:
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1.0)
    alone = Members(client, SHOP, "a")
    for call in (alone.share(), alone.leave()):
        with pytest.raises(DependencyUnavailable, match="Redis did not answer"):
            await call
    await client.aclose()
