"""Reading both logs: what is read of them, and whether they still reach back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio

from infra.catalog.applications.ranking import RANKING
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import Event
from infra.contracts.ids import ItemId, UserId
from infra.eventlog.exposures import RedisExposureLog
from infra.eventlog.redis_streams import RedisStreamLog, StreamLayout
from infra.experiments.reading import spans
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import free_port
from tests.unit.infra.experiments.scenes import shown

LISTS, EVENTS = keys.exposure_log(RANKING.name), keys.event_log(RANKING.name)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = serving_client(redis_url, timeout_s=10)
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


async def took(client: redis.asyncio.Redis, *kinds: str) -> None:
    layout = StreamLayout(EVENTS, lambda name: f"seen:{name}", lambda user: f"recent:{user}", lambda kind: True)
    at = datetime.now(UTC)
    events = [Event(f"e{n}", UserId("a"), ItemId("i1"), kind, at) for n, kind in enumerate(kinds)]
    await RedisStreamLog(client, layout).append(events)


async def showed(client: redis.asyncio.Redis, count: int) -> None:
    log = RedisExposureLog(client, LISTS, kept=1_000_000)
    await log.append([shown(f"u{n}", n) for n in range(count)])


async def test_logs_that_nobody_wrote_yet_are_empty_and_whole(client: redis.asyncio.Redis) -> None:
    found = await spans(client, RANKING, since=LONG_AGO)
    assert (found.exposures, found.events, found.trimmed, found.kept_since_s) == ([], [], "", 0.0)


async def test_all_lists_are_read_page_by_page_and_of_the_events_those_that_count(client: redis.asyncio.Redis) -> None:
    await showed(client, 5001)
    await took(client, "click", "view", "purchase", "unheard-of")
    found = await spans(client, RANKING, since=LONG_AGO)
    assert found.exposures == [shown(f"u{n}", n) for n in range(5001)]
    assert [logged.event.event_type for logged in found.events] == ["click", "purchase", "unheard-of"]
    assert found.trimmed == "" and found.kept_since_s == 0.0
    assert len({id(item) for one in found.exposures for item in one.items}) == 10


async def test_what_was_logged_before_is_left_out_but_for_a_minute(client: redis.asyncio.Redis) -> None:
    await showed(client, 3)
    await took(client, "click")
    now = datetime.now(UTC)
    later = await spans(client, RANKING, since=now + timedelta(seconds=120))
    assert (later.exposures, later.events) == ([], [])
    assert len((await spans(client, RANKING, since=now + timedelta(seconds=30))).exposures) == 3


async def test_a_trimmed_log_that_begins_after_the_moment_says_so_and_the_mend(client: redis.asyncio.Redis) -> None:
    await showed(client, 50)
    await client.xtrim(LISTS, maxlen=10, approximate=False)
    found = await spans(client, RANKING, since=LONG_AGO)
    assert found.trimmed.startswith("The log of lists shown begins at 20")
    assert found.trimmed.endswith("wanted from 2020-01-01 00:00:00 UTC on: older ones are gone.")
    assert "HEADGATE_EXPOSURES_KEPT" in found.mend and found.kept_since_s > LONG_AGO.timestamp()


async def test_a_trimmed_log_that_still_reaches_back_is_whole(client: redis.asyncio.Redis) -> None:
    await client.xadd(LISTS, {"x": "1"}, id="1500000000000-0")
    await showed(client, 3)
    await client.xtrim(LISTS, maxlen=3, approximate=False)
    found = await spans(client, RANKING, since=datetime.now(UTC) + timedelta(seconds=30))
    assert found.trimmed == "" and len(found.exposures) == 3


async def test_a_log_all_of_which_was_trimmed_is_not_taken_for_an_empty_one(client: redis.asyncio.Redis) -> None:
    await showed(client, 3)
    await client.xtrim(LISTS, maxlen=0, approximate=False)
    assert (await spans(client, RANKING, since=LONG_AGO)).trimmed != ""


async def test_events_that_are_gone_are_said_too(client: redis.asyncio.Redis) -> None:
    await showed(client, 3)
    await took(client, "click", "click")
    await client.xtrim(EVENTS, maxlen=1, approximate=False)
    found = await spans(client, RANKING, since=LONG_AGO)
    assert found.trimmed.startswith("The log of events begins at 20") and "1,000,000" in found.mend


async def test_a_redis_that_does_not_answer_is_said() -> None:
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1)
    with pytest.raises(DependencyUnavailable):
        await spans(client, RANKING, since=LONG_AGO)
    await client.aclose()
