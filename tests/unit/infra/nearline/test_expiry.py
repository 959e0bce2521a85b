"""A state outlives its events; and whose expiry was set lately is known, under the claim that is held and for so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.features import Aggregation, FeaturePlan, FeatureSpec
from infra.nearline import expiry
from infra.nearline import state as state_module
from infra.nearline.expiry import Lately
from infra.nearline.state import SLACK_S, Changes, Claim, StateStore
from infra.snapshots import keys
from tests.fixtures.lossy_redis import LossyRedis
from tests.fixtures.nearline_shop import SHOP, Shop

SHARD = 3
U1 = ("user", "u1")
HOURLY = FeaturePlan(
    [
        FeatureSpec(
            name="clicks",
            entity="user",
            aggregation=Aggregation.COUNT,
            events=frozenset({"click"}),
            window=timedelta(hours=1),
            unit="clicks",
        )
    ]
)
KEY = keys.nearline_state(SHOP, *U1, shard=SHARD)


class Hours:
    """A shop whose states live two hours, and time that passes as it is told."""

    def __init__(self, shop: Shop) -> None:
        self.client = shop.client
        self.now_s = 0.0
        self.store = StateStore(shop.client, SHOP, HOURLY, lease_s=3600, clock=lambda: self.now_s)

    async def pass_s(self, seconds: int) -> None:
        self.now_s += seconds
        await self.client.expire(KEY, await self.client.ttl(KEY) - seconds)

    async def touched(self, claim: Claim, *, stale: bool = False) -> Claim:
        """With `stale` its one field is dropped; whatever it holds."""
        upto = claim.offset + 1
        dropped: dict[tuple[str, str], list[str | int]] = {}
        if stale:
            ((held,),) = [(await self.store.read([(*U1, SHARD)]))[0].values()]
            dropped = {U1: ["+c:a", held]}
        change = Changes(claim.offset, upto, {} if stale else {U1: {"+c:a": 1}}, dropped)
        assert await self.store.apply({SHARD: claim}, {SHARD: change}) == {SHARD: None}
        return replace(claim, offset=upto)

    async def claimed(self) -> Claim:
        claim = await self.store.claim(SHARD, "a")
        assert claim is not None
        return claim


async def test_a_state_outlives_each_of_its_events_by_more_than_the_longest_window(shop: Shop) -> None:
    hours = Hours(shop)
    claim = await hours.claimed()
    left_s = []
    for _ in range(200):  # minutes: longer than it lives
        claim = await hours.touched(claim)
        left_s.append(await shop.client.ttl(KEY))
        await hours.pass_s(60)
    window_s = 3600
    assert min(left_s) > window_s + SLACK_S / 2 - 60 and max(left_s) <= window_s + SLACK_S
    assert await hours.store.read([(*U1, SHARD)]) == [{"+c:a": 200}]
    assert sum(later > sooner for sooner, later in pairwise(left_s)) == 6, "not set anew by every event"


async def test_a_state_that_was_dropped_and_comes_again_expires_too(shop: Shop) -> None:
    hours = Hours(shop)
    claim = await hours.touched(await hours.touched(await hours.claimed()), stale=True)
    assert not await shop.client.exists(KEY)
    await hours.touched(claim)
    assert await shop.client.ttl(KEY) > 3600


async def test_a_state_that_is_dropped_in_an_apply_whose_answer_is_lost_expires_when_it_comes_again(shop: Shop) -> None:
    claim = await shop.claimed(SHARD, "a")
    async with LossyRedis(shop.url) as lossy:
        store = shop.state_store(lossy.url)
        assert await store.apply({SHARD: claim}, {SHARD: Changes(0, 1, {U1: {"+c:a": 1}})}) == {SHARD: None}
        lossy.lose_answer_to(state_module._APPLY.sha)
        with pytest.raises(DependencyUnavailable):
            await store.apply({SHARD: claim}, {SHARD: Changes(1, 2, {}, {U1: ["+c:a", 1]})})
        while (await shop.store.offsets())[SHARD] != 2:
            await asyncio.sleep(0.01)
        assert await store.apply({SHARD: claim}, {SHARD: Changes(2, 3, {U1: {"+c:a": 1}})}) == {SHARD: None}
    assert await shop.client.ttl(KEY) > 3600


async def test_a_new_claim_knows_of_no_expiry_that_was_set_before(shop: Shop) -> None:
    hours = Hours(shop)
    await hours.touched(await hours.claimed())
    await shop.client.expire(KEY, 5)  # as another worker may have found it
    await hours.touched(await hours.claimed())
    assert await shop.client.ttl(KEY) > 3600


def test_what_was_set_is_known_for_so_long_and_then_all_of_it_is_set_anew() -> None:
    now_s = [100.0]
    lately = Lately(30.0, lambda: now_s[0])
    lately.of(3, 1).add("a")
    now_s[0] = 129.0
    lately.of(3, 1).add("b")
    assert lately.of(3, 1) == {"a", "b"} and lately.of(4, 1) == set()
    now_s[0] = 131.0
    assert lately.of(3, 1) == set()


@pytest.mark.parametrize(
    "happens", [lambda lately: lately.of(3, 2), lambda lately: lately.forget(3)], ids=["claimed anew", "forgotten"]
)
def test_nothing_is_known_any_more_when_the_shard_is(happens: Callable[[Lately], object]) -> None:
    lately = Lately(30.0, lambda: 0.0)
    lately.of(3, 1).add("a")
    happens(lately)
    assert lately.of(3, 1) == set()


def test_more_keys_than_it_may_remember_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "_AT_MOST", 2)
    lately = Lately(30.0, lambda: 0.0)
    lately.of(3, 1).update("ab")
    assert lately.of(3, 1) == {"a", "b"}
    lately.of(3, 1).add("c")
    assert lately.of(3, 1) == set()
