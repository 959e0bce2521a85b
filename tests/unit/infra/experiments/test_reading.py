"""Reading both logs: what is read of them, and whether they still reach back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio

from infra.catalog.applications.ranking import RANKING
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS, Event, shard_of
from infra.eventlog.exposures import RedisExposureLog
from infra.eventlog.protocol import Slice
from infra.eventlog.redis_streams import RedisStreamLog, StreamLayout
from infra.experiments import deeds
from infra.experiments.reading import Spans, spans
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import free_port
from tests.unit.infra.experiments.scenes import shown

LISTS = keys.exposure_log(RANKING.name)
LAYOUT = StreamLayout(
    stream=lambda shard: keys.event_log(RANKING.name, shard),
    tip=lambda shard: keys.event_log_tip(RANKING.name, shard),
    terms=lambda shard: keys.event_log_terms(RANKING.name, shard),
    seen=lambda shard, half: keys.event_log_seen(RANKING.name, shard, half),
    horizon=100,
)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
OF_A, OF_THE_ITEM = shard_of("user", "a"), shard_of("item", "i1")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = serving_client(redis_url, timeout_s=10)
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


def done(number: int, user: str, kind: str) -> Event:
    return Event(f"e{number}", kind, datetime.now(UTC), {"user": user, "item": "i1"})


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[RedisStreamLog]:
    log = RedisStreamLog(serving_client(redis_url, timeout_s=10), LAYOUT)
    yield log
    await log.close()


async def took(log: RedisStreamLog, *kinds: str) -> None:
    for number, kind in enumerate(kinds):
        await log.append(done(number, "a", kind).records())


async def showed(client: redis.asyncio.Redis, count: int) -> None:
    log = RedisExposureLog(client, LISTS, kept=1_000_000)
    await log.append([shown(f"u{n}", n) for n in range(count)])


async def read(client: redis.asyncio.Redis, log: RedisStreamLog, *, since: datetime = LONG_AGO) -> Spans:
    return await spans(client, log, RANKING, since=since, now=datetime.now(UTC))


async def test_logs_that_nobody_wrote_yet_are_empty_and_whole(client: redis.asyncio.Redis, log: RedisStreamLog) -> None:
    found = await read(client, log)
    assert (found.exposures, found.events, found.trimmed, found.kept_since_s) == ([], [], "", 0.0)


async def test_all_lists_are_read_page_by_page_and_of_the_events_those_that_count(
    client: redis.asyncio.Redis, log: RedisStreamLog
) -> None:
    await showed(client, 5001)
    await took(log, "click", "view", "purchase", "unheard-of")
    found = await read(client, log)
    assert found.exposures == [shown(f"u{n}", n) for n in range(5001)]
    assert [(deed.user_id, deed.item_id, deed.event_type) for deed in found.events] == [
        ("a", "i1", "click"),
        ("a", "i1", "purchase"),
        ("a", "i1", "unheard-of"),
    ]
    assert found.trimmed == "" and found.kept_since_s == 0.0
    assert len({id(item) for one in found.exposures for item in one.items}) == 10


async def test_events_of_all_shards_are_read_page_by_page_by_the_time_they_were_logged(
    client: redis.asyncio.Redis, log: RedisStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deeds, "_PAGE", 7)
    users = [f"u{number}" for number in range(300)]
    for start in range(0, 300, 50):
        events = [done(start + n, user, "click") for n, user in enumerate(users[start : start + 50])]
        await log.append([record for event in events for record in event.records()])
    assert {shard_of("user", user) for user in users} == set(range(SHARDS))
    found = (await read(client, log)).events
    assert sorted(deed.user_id for deed in found) == sorted(users)
    assert [deed.logged_s for deed in found] == sorted(deed.logged_s for deed in found)
    assert abs(found[-1].logged_s - datetime.now(UTC).timestamp()) < 3600


async def test_what_was_logged_before_is_left_out_but_for_a_minute(
    client: redis.asyncio.Redis, log: RedisStreamLog
) -> None:
    await showed(client, 3)
    await took(log, "click")
    now = datetime.now(UTC)
    later = await read(client, log, since=now + timedelta(seconds=120))
    assert (later.exposures, later.events) == ([], [])
    soon = await read(client, log, since=now + timedelta(seconds=30))
    assert (len(soon.exposures), len(soon.events)) == (3, 1)


async def test_a_trimmed_log_that_begins_after_the_moment_says_so_and_the_mend(
    client: redis.asyncio.Redis, log: RedisStreamLog
) -> None:
    await showed(client, 50)
    await client.xtrim(LISTS, maxlen=10, approximate=False)
    found = await read(client, log)
    assert found.trimmed.startswith("The log of lists shown begins at 20")
    assert found.trimmed.endswith("wanted from 2020-01-01 00:00:00 UTC on: older ones are gone.")
    assert "HEADGATE_EXPOSURES_KEPT" in found.mend and found.kept_since_s > LONG_AGO.timestamp()


async def test_a_trimmed_log_that_still_reaches_back_is_whole(client: redis.asyncio.Redis, log: RedisStreamLog) -> None:
    await client.xadd(LISTS, {"x": "1"}, id="1500000000000-0")
    await showed(client, 3)
    await client.xtrim(LISTS, maxlen=3, approximate=False)
    await took(log, "click", "click")
    await log.trim(OF_A, upto=1)
    found = await read(client, log, since=datetime.now(UTC) + timedelta(seconds=30))
    assert found.trimmed == "" and len(found.exposures) == 3 and len(found.events) == 1


async def test_a_log_all_of_which_was_trimmed_is_not_taken_for_an_empty_one(
    client: redis.asyncio.Redis, log: RedisStreamLog
) -> None:
    await showed(client, 3)
    await client.xtrim(LISTS, maxlen=0, approximate=False)
    assert (await read(client, log)).trimmed != ""


async def test_a_shard_all_of_which_was_trimmed_is_not_taken_for_an_empty_one(
    client: redis.asyncio.Redis, log: RedisStreamLog
) -> None:
    await took(log, "click", "click")
    await log.trim(OF_A, upto=2)
    before_s = datetime.now(UTC).timestamp()
    found = await read(client, log)
    assert found.events == [] and found.trimmed.startswith("The log of events begins at 20")
    assert found.kept_since_s >= before_s


async def test_events_that_are_gone_are_said_too_from_the_latest_of_the_shards_on(
    client: redis.asyncio.Redis, log: RedisStreamLog
) -> None:
    await showed(client, 3)
    await took(log, "click", "click")
    for shard in (OF_A, OF_THE_ITEM):
        await log.trim(shard, upto=1)
    (kept_ms,) = (await log.read({OF_A: 1}, count=1))[0].logged_ms
    (of_the_item_ms,) = (await log.read({OF_THE_ITEM: 1}, count=1))[0].logged_ms
    found = await read(client, log)
    assert found.trimmed.startswith("The log of events begins at 20") and "HEADGATE_LOG_KEPT_RECORDS" in found.mend
    assert found.kept_since_s == max(kept_ms, of_the_item_ms) / 1000


async def test_what_is_trimmed_while_it_is_read_ends_nothing_and_is_said(
    client: redis.asyncio.Redis, redis_url: str
) -> None:
    class TrimmedMeanwhile(RedisStreamLog):
        """Somebody trims one more record before each page, up to thirty."""

        upto = 0

        async def read(self, after: Mapping[int, int], *, count: int) -> list[Slice]:
            self.upto = min(self.upto + 1, 30)
            await self.trim(OF_A, upto=self.upto)
            return await super().read(after, count=count)

    log = TrimmedMeanwhile(serving_client(redis_url, timeout_s=10), LAYOUT)
    await took(log, *["click"] * 40)
    found = await read(client, log)
    assert log.upto == 30 and len(found.events) == 10
    assert found.trimmed.startswith("The log of events begins at 20")
    await log.close()


@pytest.mark.parametrize("away", ["lists", "events"])
async def test_a_redis_that_does_not_answer_is_said(client: redis.asyncio.Redis, away: str) -> None:
    nobody = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1)
    lists, events = (nobody, client) if away == "lists" else (client, nobody)
    with pytest.raises(DependencyUnavailable, match="lists shown" if away == "lists" else "event log"):
        await read(lists, RedisStreamLog(events, LAYOUT))
    await nobody.aclose()
