"""What a log of lists shown must do, by the one that there is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
import pytest_asyncio
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId, VersionName
from infra.eventlog.exposures import RedisExposureLog
from infra.eventlog.protocol import ExposureLog
from infra.snapshots.connection import serving_client
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess, new_redis

START = datetime(2024, 6, 1, 12, tzinfo=UTC)


def exposure(number: int, *, arm: Arm = Arm.LIVE, items: tuple[str, ...] = ("i1", "i2")) -> Exposure:
    return Exposure(
        request_id=f"r{number}",
        user_id=UserId(f"u{number}"),
        at=START + timedelta(seconds=number, microseconds=123_457),
        generation=7,
        version=VersionName("v12"),
        arm=arm,
        items=tuple(ItemId(item) for item in items),
        total_ms=3.25,
        degraded=number % 2 == 1,
    )


@dataclass
class Under:
    """A log under test and the Redis behind it."""

    log: ExposureLog
    raw: redis.Redis

    async def all(self) -> list[Exposure]:
        return [row.exposure for row in await self.log.read(after="0-0", count=10_000)]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest_asyncio.fixture
async def under(server: RedisProcess) -> AsyncIterator[Under]:
    raw = redis.Redis.from_url(server.url)
    raw.flushall()
    client = serving_client(server.url, timeout_s=5.0)
    yield Under(RedisExposureLog(client, "lists", kept=1000), raw)
    await client.aclose()
    raw.close()


async def test_lists_are_read_back_as_they_were_in_their_order(under: Under) -> None:
    sent = [
        exposure(1),
        exposure(2, arm=Arm.CANARY, items=()),
        exposure(3, arm=Arm.SHADOW, items=('a,"b"\n\x00é', "]")),
    ]
    await under.log.append(sent)
    assert await under.all() == sent
    assert under.raw.xlen("lists") == 3


async def test_reading_goes_on_after_a_position_and_stops_at_the_count(under: Under) -> None:
    await under.log.append([exposure(number) for number in range(10)])
    first = await under.log.read(after="0-0", count=4)
    rest = await under.log.read(after=first[-1].position, count=100)
    assert [row.exposure.request_id for row in first + rest] == [f"r{number}" for number in range(10)]
    assert await under.log.read(after=rest[-1].position, count=5) == []


async def test_nothing_appended_is_nothing_written(under: Under) -> None:
    await under.log.append([])
    assert under.raw.keys("*") == []


@pytest.mark.parametrize("position", ["", "0", "newest", "(1-0", "-", "$", "1-0\n", "x" * 5000])
async def test_what_is_no_position_is_refused(position: str, under: Under) -> None:
    with pytest.raises(InvalidRequest, match="is not a position of this log"):
        await under.log.read(after=position, count=1)


async def test_about_so_many_as_are_kept_stay_and_they_are_the_newest(under: Under) -> None:
    for first in range(0, 5000, 500):
        await under.log.append([exposure(number) for number in range(first, first + 500)])
    kept = [one.request_id for one in await under.all()]
    assert 1000 <= len(kept) < 1500
    assert kept == [f"r{number}" for number in range(5000 - len(kept), 5000)]


async def test_with_memory_full_none_of_several_is_taken_and_later_all_are(under: Under) -> None:
    await under.log.append([exposure(0)])
    under.raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(DependencyUnavailable, match=r"did not take 5: .*memory"):
            await under.log.append([exposure(number) for number in range(1, 6)])
        assert await under.all() == [exposure(0)]
    finally:
        under.raw.config_set("maxmemory", 0)
    await under.log.append([exposure(number) for number in range(1, 6)])
    assert len(await under.all()) == 6


async def test_a_log_that_is_away_says_so() -> None:
    server = new_redis()
    client = serving_client(server.url, timeout_s=1.0)
    log = RedisExposureLog(client, "lists", kept=10)
    server.kill()
    with pytest.raises(DependencyUnavailable, match="did not take 1"):
        await log.append([exposure(1)])
    with pytest.raises(DependencyUnavailable, match="cannot be read"):
        await log.read(after="0-0", count=1)
    server.start()
    await log.append([exposure(1)])
    assert [row.exposure for row in await log.read(after="0-0", count=9)] == [exposure(1)]
    await client.aclose()
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "latest"),
        ("arm", "treatment"),
        ("at_us", "yesterday"),
        ("at_us", "9" * 30),
        ("generation", "new"),
        ("items", "i1,i2"),
        ("items", '"i1"'),
        ("items", "[1, 2]"),
        ("total_ms", "nan"),
        ("degraded", "no"),
        ("user_id", b"\xff"),
        ("items", None),
    ],
)
async def test_a_row_that_headgate_did_not_write_is_not_taken_for_a_list(
    field: str, value: str | bytes | None, under: Under
) -> None:
    await under.log.append([exposure(1)])
    ((_, written),) = cast("list[tuple[bytes, dict[bytes, bytes]]]", under.raw.xrange("lists"))
    spoilt = {key: text for key, text in {**written, field.encode(): value}.items() if text is not None}
    under.raw.xadd("lists", spoilt)  # type: ignore[arg-type]
    with pytest.raises(ContractViolation, match="a row that headgate did not write"):
        await under.all()


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(user=_TEXT, items=st.lists(_TEXT, max_size=6))
@hypothesis_settings(
    max_examples=sized(60, full=1200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_ids_come_back_as_they_were(server: RedisProcess, user: str, items: list[str]) -> None:
    async def there_and_back() -> None:
        client = serving_client(server.url, timeout_s=5.0)
        await client.flushall()
        log = RedisExposureLog(client, "lists", kept=10)
        shown = tuple(ItemId(item) for item in items)
        sent = Exposure("r", UserId(user), START, 1, VersionName("v1"), Arm.LIVE, shown, 0.5, False)
        await log.append([sent])
        (back,) = await log.read(after="0-0", count=2)
        assert back.exposure == sent
        await client.aclose()

    asyncio.run(there_and_back())
