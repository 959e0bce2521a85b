"""Read your writes: what an entity has just done is in its features at once, and is never counted twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import Event, Record, shard_of
from infra.contracts.features import Deltas
from infra.eventlog.protocol import Appended, EventLog
from infra.eventlog.scripts import executed
from infra.nearline.counting import Horizon, counted, counted_once, within_one_half
from infra.nearline.pending import KEPT, KEPT_S, READ, PendingRecords, Seen
from infra.nearline.state import Claim
from infra.snapshots import keys
from tests.fixtures.list_log import ListLog
from tests.fixtures.nearline_shop import HORIZON, PLAN, SHOP, Shop, now_us
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess

USER = "u1"
SHARD = shard_of("user", USER)


def click(number: int, *, item: str = "", user: str = USER) -> Event:
    happened = datetime.now(UTC) - timedelta(seconds=1)
    return Event(f"e{number}", "click", happened, {"user": user, "item": item or f"i{number}"})


@dataclass
class ByHand:
    """A service and a worker of one shard, one step at a time: append, note, apply.

    waiting: appended and not noted. logged: (offset, record) of what the log took. noted: offsets.
    """

    shop: Shop
    log: EventLog
    pending: PendingRecords
    claim: Claim
    waiting: list[tuple[Record, Appended]] = field(default_factory=list)
    logged: list[tuple[int, Record]] = field(default_factory=list)
    noted: set[int] = field(default_factory=set)

    @classmethod
    async def of(cls, shop: Shop, log: EventLog | None = None) -> ByHand:
        pending = PendingRecords(shop.client, SHOP, PLAN, kinds=frozenset({"user"}))
        return cls(shop, log or shop.log, pending, await shop.claimed(SHARD, "a"))

    async def append(self, *events: Event) -> None:
        records = [event.records()[0] for event in events]
        for record, place in zip(records, await self.log.append(records), strict=True):
            self.waiting.append((record, place))
            if not place.duplicate:
                self.logged.append((place.offset, record))

    async def note(self, at: int = 0) -> None:
        record, place = self.waiting.pop(at)
        await self.pending.note([record], [place])
        if not place.duplicate:  # else its first may say something else: it is known once the worker has counted that
            self.noted.add(place.offset)

    async def apply(self, count: int = 1000) -> None:
        for piece in await self.log.read({SHARD: self.claim.offset}, count=count):
            parts = [piece] if self.log.finds_duplicates else within_one_half(piece, Horizon(HORIZON))
            for part in parts:
                if self.log.finds_duplicates:
                    change = counted(part, PLAN)
                else:
                    change = await counted_once(part, PLAN, self.shop.store, Horizon(HORIZON))
                assert await self.shop.store.apply({SHARD: self.claim}, {SHARD: change}) == {SHARD: None}
                self.claim = Claim(SHARD, self.claim.epoch, part.upto)

    async def seen(self, user: str = USER, values: Sequence[str] = ()) -> Seen:
        (reply,) = await executed(self.shop.client, lambda pipe: self.pending.ask(pipe, "user", user, values), READ)
        return self.pending.seen("user", user, reply)

    def expected(self) -> dict[str, int]:
        """The user's state after every event that is counted or noted, each once."""
        once = {
            record.event_id: record
            for offset, record in self.logged
            if record.entity_id == USER and (offset <= self.claim.offset or offset in self.noted)
        }
        deltas: Deltas = {}
        PLAN.accumulate(once.values(), deltas)
        return deltas.get(("user", USER), {})


async def test_what_a_user_did_is_known_before_any_worker_ran_and_stays_what_it_is_once_counted(shop: Shop) -> None:
    hand = await ByHand.of(shop)
    await hand.append(click(1))
    assert (await hand.seen()).state == {}
    await hand.note()
    before = await hand.seen()
    moment = now_us()
    assert PLAN.features("user", before.state, moment)["recent_items"] == ("i1",)
    assert PLAN.features("user", before.state, moment)["clicks_last_hour"] == 1
    assert (before.offset, before.pending, before.is_whole) == (0, (1,), True)
    await hand.apply()
    after = await hand.seen()
    assert after.state == before.state == (await shop.store.read([("user", USER, SHARD)]))[0]
    assert (after.offset, after.pending, after.pending_records) == (1, (), ())


_steps = st.lists(st.sampled_from(["append", "append", "again", "other", "note", "note", "apply"]), max_size=40)


@pytest.mark.parametrize("finds_duplicates", [True, False])
@hypothesis_settings(
    max_examples=sized(60, full=2000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=_steps, seed=st.integers(0, 2**32))
def test_at_every_interleaving_each_event_counts_once(
    redis_url: str, finds_duplicates: bool, steps: list[str], seed: int
) -> None:
    async def drive() -> None:
        shop, rng = Shop(redis_url), random.Random(seed)
        await shop.client.flushall()
        hand = await ByHand.of(shop, None if finds_duplicates else ListLog(seed=seed))
        other = next(f"u{n}" for n in range(2, 999) if shard_of("user", f"u{n}") == SHARD)
        sent: list[Event] = []
        for step in steps:
            if step in ("append", "other"):
                sent.append(click(len(sent), item=f"i{rng.randint(0, 3)}", user=USER if step == "append" else other))
                await hand.append(sent[-1])
            elif step == "again" and sent:
                await hand.append(rng.choice(sent))
            elif step == "note" and hand.waiting:
                await hand.note(rng.randrange(len(hand.waiting)))
            elif step == "apply":
                await hand.apply(count=rng.randint(1, 4))
            seen = await hand.seen()
            assert seen.state == hand.expected()
            assert seen.is_whole and set(seen.pending) <= hand.noted
        await shop.close()

    asyncio.run(drive())


async def test_what_was_sent_again_and_is_counted_already_is_left_out_although_nobody_noted_it_first(
    shop: Shop,
) -> None:
    hand = await ByHand.of(shop, ListLog())
    await hand.append(click(1, item='é\n"i'))
    hand.waiting.clear()  # the log had it, and its answer was lost
    await hand.apply()
    await hand.append(click(1, item='é\n"i'), click(2))
    await hand.note()
    await hand.note()
    seen = await hand.seen()
    assert PLAN.features("user", seen.state, now_us())["clicks_last_hour"] == 2
    assert [record.event_id for record in seen.pending_records] == ["e2"]


async def test_more_than_are_kept_are_left_out_together_until_the_worker_has_counted_them(shop: Shop) -> None:
    hand = await ByHand.of(shop)
    await hand.append(click(0))
    await hand.apply()
    await hand.append(*(click(number) for number in range(1, KEPT + 6)))
    while hand.waiting:
        await hand.note()
    seen = await hand.seen()
    assert (seen.is_whole, seen.pending, len(seen.pending_records)) == (False, (), KEPT)
    assert PLAN.features("user", seen.state, now_us())["clicks_last_hour"] == 1
    await hand.apply(count=6)
    part = await hand.seen()
    assert part.is_whole and part.state == hand.expected()
    await hand.apply()
    seen = await hand.seen()
    assert seen.is_whole and seen.state == hand.expected()


async def test_only_kinds_that_are_asked_for_are_kept_and_not_for_long(shop: Shop) -> None:
    hand = await ByHand.of(shop)
    records = click(1).records()
    await hand.pending.note(records, await shop.log.append(records))
    assert not await shop.client.exists(keys.pending(SHOP, "item", "i1"))
    assert 0 < await shop.client.ttl(keys.pending(SHOP, "user", USER)) <= KEPT_S


async def test_other_keys_are_read_in_the_same_script(shop: Shop) -> None:
    hand = await ByHand.of(shop)
    key = keys.shard_tag(SHOP, SHARD) + "something"
    await shop.client.set(key, b"\x00\xff")
    assert (await hand.seen(values=[key, key + "_missing"])).values == (b"\x00\xff", None)


async def test_a_redis_that_is_away_is_said_to_be(own_redis: RedisProcess) -> None:
    shop = Shop(own_redis.url)
    pending = PendingRecords(shop.client, SHOP, PLAN, kinds=frozenset({"user"}))
    records = click(1).records()
    places = await shop.log.append(records)
    own_redis.kill()
    with pytest.raises(DependencyUnavailable, match="Redis did not answer"):
        await pending.note(records, places)
    own_redis.start()
    await shop.close()
