"""Counting slices of a log: what producers sent twice counts once, by one rule, however the log is cut into slices."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.events import SHARDS, Event, Record
from infra.eventlog.protocol import Slice
from infra.nearline.counting import Horizon, counted, counted_once, within_one_half
from infra.nearline.state import Changes
from infra.snapshots import keys
from tests.fixtures.list_log import ListLog, each_once
from tests.fixtures.nearline_shop import PLAN, SHOP, Shop, counted_plainly, digests_of, now_us, records_of, some_events
from tests.fixtures.proof import sized


def piece(after: int, offsets: Sequence[int], upto: int) -> Slice:
    return Slice(0, after, upto, offsets, [at * 10 for at in offsets], [b"%d" % at for at in offsets])


@given(
    steps=st.lists(st.integers(1, 30), max_size=30),
    after=st.integers(0, 50),
    beyond=st.integers(0, 30),
    horizon=st.integers(1, 12).map(Horizon),
)
def test_a_slice_is_cut_where_turns_begin_and_nothing_of_it_is_lost(
    steps: list[int], after: int, beyond: int, horizon: Horizon
) -> None:
    offsets = [after + sum(steps[: n + 1]) for n in range(len(steps))]
    whole = piece(after, offsets, (offsets[-1] if offsets else after) + beyond)
    parts = within_one_half(whole, horizon)
    assert [part.after for part in parts] == [after, *(part.upto for part in parts[:-1])]
    assert parts[-1].upto == whole.upto
    for name in ("offsets", "logged_ms", "payloads"):
        assert [one for part in parts for one in getattr(part, name)] == list(getattr(whole, name))
    for part in parts:
        assert len({horizon.half(at) for at in part.offsets}) <= 1
        assert all(part.after < at <= part.upto for at in part.offsets)


def test_a_log_that_finds_duplicates_is_counted_as_it_is() -> None:
    records = records_of(some_events(50, seed=1))
    of_shard = [record for record in records if record.shard == 5]
    log = ListLog(holes=0)
    asyncio.run(log.append(of_shard))
    (whole,) = asyncio.run(log.read({5: 0}, count=1))[:1]
    assert counted(whole, PLAN) == Changes(0, whole.upto, counted_plainly([of_shard[0]])[5])


def sent(seed: int, *, n: int, reach: int) -> list[Record]:
    """The records of some events, of which some are sent again, at once or up to `reach` events later, and some a third time."""
    rng = random.Random(seed)
    events: list[Event] = []
    for event in some_events(n, seed=seed, users=4, items=4):
        events.append(event)
        while rng.random() < 0.4:
            events.append(rng.choice(events[-reach:]))
    return records_of(events)


@hypothesis_settings(
    max_examples=sized(40, full=1000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), horizon=st.integers(1, 25), page=st.integers(1, 12), holes=st.integers(0, 30))
def test_what_is_sent_twice_counts_by_the_rule_however_the_log_is_cut(
    redis_url: str, seed: int, horizon: int, page: int, holes: int
) -> None:
    async def count_all() -> None:
        shop = Shop(redis_url)
        await shop.client.flushall()
        log = ListLog(seed=seed, holes=holes)
        for record in sent(seed, n=30, reach=10):
            await log.append([record])
            if seed % 3 == 0:
                log.leave_a_hole(record.shard)
        claims = {shard: await shop.claimed(shard, "a") for shard in range(SHARDS)}
        after = dict.fromkeys(range(SHARDS), 0)
        while slices := await log.read(after, count=page):
            for whole in slices:
                for part in within_one_half(whole, Horizon(horizon)):
                    change = await counted_once(part, PLAN, shop.store, Horizon(horizon))
                    assert await shop.store.apply(claims, {whole.shard: change}) == {whole.shard: None}
                after[whole.shard] = whole.upto
        moment = now_us()
        wanted = digests_of(counted_plainly(each_once(log, horizon=horizon)), moment)
        assert await shop.digests(moment) == wanted
        await shop.close()

    asyncio.run(count_all())


def test_the_rule_leaves_out_some_of_what_is_sent_twice_and_not_all() -> None:
    """Else the property above would hold of a rule that is none."""
    log = ListLog(seed=5, holes=3)
    records = sent(5, n=30, reach=10)
    asyncio.run(log.append(records))
    different = {(record.kind, record.event_id) for record in records}
    assert len(different) < len(each_once(log, horizon=3)) < len(records)


async def test_what_is_remembered_does_not_grow_with_the_log(shop: Shop) -> None:
    horizon, shard = Horizon(10), 2
    claim = await shop.claimed(shard, "a")
    log = ListLog(holes=0)
    records = [record for record in records_of(some_events(3000, seed=2)) if record.shard == shard]
    await log.append(records)
    after = 0
    while slices := await log.read({shard: after}, count=30):
        for part in within_one_half(slices[0], horizon):
            change = await counted_once(part, PLAN, shop.store, horizon)
            assert await shop.store.apply({shard: claim}, {shard: change}) == {shard: None}
        after = slices[0].upto
    kept = [await shop.client.hlen(keys.nearline_seen(SHOP, shard, half)) for half in (0, 1)]
    assert len(records) > 100 and max(kept) <= horizon.offsets
