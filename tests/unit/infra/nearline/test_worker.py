"""The worker counts each record once: with others beside it, behind a slow or broken wire, and when it is stopped anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.events import SHARDS, Event, Record
from infra.eventlog.protocol import LogLost, Slice
from infra.nearline import state as state_module
from infra.nearline import worker as worker_module
from infra.nearline.members import Members
from infra.nearline.state import Changes, Claim, Fenced, StateStore
from infra.nearline.worker import Worker
from infra.snapshots import keys
from tests.fixtures.list_log import ListLog, each_once
from tests.fixtures.lossy_redis import LossyRedis
from tests.fixtures.nearline_shop import (
    PLAN,
    SHOP,
    Shop,
    counted_plainly,
    digests_of,
    now_us,
    records_of,
    some_events,
    until,
)
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess


@asynccontextmanager
async def working(*workers: Worker) -> AsyncIterator[list[asyncio.Task[None]]]:
    """They work until the end, and then stop in order."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(worker.run(stop)) for worker in workers]
    try:
        yield tasks
    finally:
        stop.set()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def is_right(shop: Shop, records: Sequence[Record]) -> bool:
    """Whether the state is that of those records, each counted once."""
    moment = now_us()
    return await shop.digests(moment) == digests_of(counted_plainly(records), moment)


async def owners(shop: Shop) -> list[str]:
    found = [await shop.client.hget(keys.nearline_position(SHOP, shard), "owner") for shard in range(SHARDS)]
    return [owner.decode() if isinstance(owner, bytes) else "" for owner in found]


async def test_all_is_counted_once_while_it_is_appended_and_sent_again(shop: Shop) -> None:
    events = some_events(1500, seed=1)
    worker = shop.worker("a")
    async with working(worker) as tasks:
        for at in range(0, 1500, 100):
            await shop.send(events[at : at + 100])
            await shop.send(events[max(0, at - 50) : at + 20])
        await until(shop.caught_up, working=tasks)
    assert await is_right(shop, records_of(events))
    assert not await is_right(shop, records_of(events[1:]))
    assert worker.progress.records == len(records_of(events)) and worker.progress.fenced == 0


async def test_two_share_the_shards_and_the_one_that_stops_leaves_his_at_once(shop: Shop) -> None:
    events: list[Event] = []
    a, b = (shop.worker(name, lease_s=3600) for name in "ab")

    async def both() -> bool:
        return sorted(await owners(shop)) == ["a"] * 8 + ["b"] * 8

    async def send(n: int) -> None:
        more = some_events(n, seed=len(events), first=len(events))
        events.extend(more)
        await shop.send(more)

    async with working(a) as first:
        await send(300)
        async with working(b) as second:
            sharing = asyncio.create_task(until(both, working=[*first, *second]))
            while not sharing.done():
                await send(10)
            await sharing
            await send(200)
            await until(shop.caught_up, working=[*first, *second])
        await send(100)
        await until(shop.caught_up, working=first)
    assert await is_right(shop, records_of(events))
    assert a.progress.records > b.progress.records > 0
    assert a.progress.records + b.progress.records == len(records_of(events)), "nothing was counted in vain"


async def test_the_shards_of_one_who_died_are_taken_over(shop: Shop) -> None:
    events = some_events(300, seed=3)
    dead = Members(shop.client, SHOP, "b", lease_s=0.4)
    for shard in await dead.share():
        await shop.claimed(shard, "b")
    await shop.send(events)
    async with working(shop.worker("a")) as tasks:
        await until(shop.caught_up, working=tasks)
        assert set(await owners(shop)) == {"a"}
    assert await is_right(shop, records_of(events))


class HeldUp(StateStore):
    """Its applies wait at a gate: a worker that stands still between what it counted and what it writes."""

    gate: asyncio.Event
    waiting = 0

    async def apply(self, claims: Mapping[int, Claim], changes: Mapping[int, Changes]) -> dict[int, Fenced | None]:
        self.waiting += 1
        await self.gate.wait()
        return await super().apply(claims, changes)


async def test_a_worker_that_stood_still_past_its_lease_is_fenced(shop: Shop) -> None:
    events, more = some_events(600, seed=4), some_events(100, seed=5, first=600)
    held_up = HeldUp(shop.client, SHOP, PLAN, lease_s=0.4)
    held_up.gate = asyncio.Event()
    zombie, other = shop.worker("a", store=held_up), shop.worker("b")
    await shop.send(events)

    async def stands() -> bool:
        return held_up.waiting > 0

    async with working(zombie) as first:
        await until(stands, working=first)
        async with working(other) as second:
            await until(shop.caught_up, working=[*first, *second])
            held_up.gate.set()

            async def is_fenced() -> bool:
                return zombie.progress.fenced == SHARDS

            await until(is_fenced, working=[*first, *second])
            assert await is_right(shop, records_of(events))
            await shop.send(more)
            await until(shop.caught_up, working=[*first, *second])
    assert await is_right(shop, records_of([*events, *more]))


async def test_events_that_were_trimmed_before_they_were_counted_stop_it_loudly(shop: Shop) -> None:
    await shop.send(some_events(200, seed=6))
    await shop.log.trim(3, upto=2)
    with pytest.raises(LogLost, match="Shard 3 of the log begins at 3; wanted is 1"):
        await shop.worker("a").run(asyncio.Event())
    assert await shop.store.claim(3, "b") is not None, "and it has left its shards"


async def test_a_log_that_ends_before_what_was_counted_stops_it_loudly(shop: Shop) -> None:
    await shop.send(some_events(200, seed=6))
    async with working(shop.worker("a")) as tasks:
        await until(shop.caught_up, working=tasks)
        await shop.client.delete(keys.event_log(SHOP, 3), keys.event_log_tip(SHOP, 3))
        with pytest.raises(LogLost, match="Shard 3 of the log ends at 0"):
            await asyncio.wait_for(tasks[0], 60)
        tasks.clear()


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_it_waits_while_redis_is_away_and_goes_on(own_redis: RedisProcess, how: str) -> None:
    shop = Shop(own_redis.url, timeout_s=0.3)
    events = some_events(1200, seed=7)
    await shop.send(events[:1000])
    worker = shop.worker("a", page=5)

    async def has_begun() -> bool:
        return worker.progress.applies > 20

    async def has_failed() -> bool:
        return worker.progress.failures > 1

    async with working(worker) as tasks:
        await until(has_begun, working=tasks)
        if how == "killed":
            own_redis.kill()
        elif own_redis.process is not None:
            own_redis.process.send_signal(signal.SIGSTOP)
        await until(has_failed, working=tasks)
        if how == "killed":
            own_redis.start()
        elif own_redis.process is not None:
            own_redis.process.send_signal(signal.SIGCONT)
        await shop.send(events[1000:])
        await until(shop.caught_up, working=tasks)
    assert await is_right(shop, records_of(events))
    await shop.close()


async def test_what_was_applied_and_its_answer_lost_is_not_applied_again(shop: Shop) -> None:
    events = some_events(900, seed=8)
    async with LossyRedis(shop.url) as lossy:
        store = shop.state_store(lossy.url)
        worker = shop.worker("a", store=store, page=4)
        async with working(worker) as tasks:
            for n in range(3):
                lossy.lose_answer_to(state_module._APPLY.sha)
                await shop.send(events[300 * n : 300 * n + 300])

                async def is_lost(n: int = n) -> bool:
                    return lossy.lost > n

                await until(is_lost, working=tasks)
            await until(shop.caught_up, working=tasks)
    assert worker.progress.failures == 3 and worker.progress.fenced == 0
    assert await is_right(shop, records_of(events))


async def test_cancelled_anywhere_it_leaves_a_state_from_which_the_next_goes_on(shop: Shop) -> None:
    rng = random.Random(10)
    events = some_events(2000, seed=10)
    await shop.send(events)
    cancelled = 0
    while not await shop.caught_up():
        task = asyncio.create_task(shop.worker(f"w{cancelled}", page=3).run(asyncio.Event()))
        await asyncio.sleep(rng.random() * 0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled += 1
    assert cancelled > 3
    assert await is_right(shop, records_of(events))


class NeverDry(ListLog):
    """Has something new at every read."""

    def __init__(self, event: Event) -> None:
        super().__init__(holes=0)
        self._event = event
        self.given = 0

    async def read(self, after: Mapping[int, int], *, count: int) -> list[Slice]:
        self.given += 1
        entities, now = self._event.entities, datetime.now(UTC)
        await self.append(Event(f"more{self.given}", "click", now, entities).records())
        return await super().read(after, count=count)


async def test_what_counts_in_no_window_is_dropped_even_while_the_log_never_runs_dry(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_CLEAN_EVERY_S", 0.0)
    monkeypatch.setattr(worker_module, "_SHARE_EVERY_S", 0.05)
    old = Event("old", "purchase", datetime.now(UTC) - timedelta(hours=3), {"user": "u1", "item": "i1"})
    log = NeverDry(old)
    await log.append(old.records())
    (purchases,) = (spec for spec in PLAN.of("user") if spec.name == "purchases_last_hour")
    shard = old.records()[0].shard

    async def holds_some() -> bool:
        (state,) = await shop.store.read([("user", "u1", shard)])
        return any(field.startswith(f"+{purchases.code}:") for field in state)

    async def holds_none() -> bool:
        return not await holds_some()

    async with working(shop.worker("a", log=log)) as tasks:
        await until(holds_some, working=tasks)
        await until(holds_none, working=tasks)
    (state,) = await shop.store.read([("user", "u1", shard)])
    assert PLAN.features("user", state, now_us())["recent_items"] == ("i1",)


@hypothesis_settings(
    max_examples=sized(15, full=300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), horizon=st.integers(2, 40), page=st.integers(1, 20))
def test_of_a_log_that_keeps_what_is_sent_twice_each_event_counts_by_the_rule(
    redis_url: str, seed: int, horizon: int, page: int
) -> None:
    async def count_all() -> None:
        shop, rng, log = Shop(redis_url), random.Random(seed), ListLog(seed=seed)
        await shop.client.flushall()
        events = some_events(120, seed=seed % 1000, users=2, items=1)
        pairs = [(event, rng.choice(events[max(0, at - 8) : at + 1])) for at, event in enumerate(events)]
        for pair in pairs[:80]:
            await log.append(records_of(pair))
        async with working(shop.worker("a", log=log, horizon=horizon, page=page)) as tasks:
            for pair in pairs[80:]:
                await log.append(records_of(pair))
                log.leave_a_hole(rng.randrange(SHARDS))
            await until(lambda: shop.caught_up(log), working=tasks)
        assert await is_right(shop, each_once(log, horizon=horizon))
        await shop.close()

    asyncio.run(count_all())
