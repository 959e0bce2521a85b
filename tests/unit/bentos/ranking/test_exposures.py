"""Lists on their way to the log: all that were shown arrive, no request waits, and what is lost is counted."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
import redis.asyncio

from bentos.ranking import exposures, queued
from bentos.ranking.exposures import ExposureWriter
from bentos.ranking.telemetry import Telemetry
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId, VersionName
from infra.eventlog.exposures import RedisExposureLog
from infra.eventlog.protocol import LoggedExposure
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import new_redis

STREAM = "lists of the writer"


def shown(number: int) -> Exposure:
    items = (ItemId("i1"), ItemId("i2"))
    at = datetime(2026, 5, 1, 12, 0, number % 60, tzinfo=UTC)
    return Exposure(f"r{number}", UserId(f"u{number}"), at, 3, VersionName("v2"), Arm.LIVE, items, 4.0, degraded=False)


class Gate:
    """An ExposureLog that takes nothing while it is shut, and fails as it is told to."""

    def __init__(self, *, opened: bool = True) -> None:
        self.open = asyncio.Event()
        self.fails: Exception | None = None
        self.taken: list[list[Exposure]] = []
        if opened:
            self.open.set()

    async def append(self, exposures: Sequence[Exposure]) -> None:
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        self.taken.append(list(exposures))

    async def read(self, *, after: str, count: int) -> list[LoggedExposure]:
        return [LoggedExposure("1-0", one) for batch in self.taken for one in batch]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def lost_and_logged(telemetry: Telemetry) -> tuple[int, int]:
    return telemetry.counters["exposures_lost"], telemetry.counters["exposures_logged"]


async def test_what_is_noted_is_in_the_log_soon_and_in_order(client: redis.asyncio.Redis) -> None:
    telemetry, log = Telemetry("test"), RedisExposureLog(client, STREAM, kept=10_000)
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    try:
        for number in range(3):
            writer.note(shown(number))
        await until(lambda: lost_and_logged(telemetry) == (0, 3))
        writer.note(shown(3))
        await until(lambda: lost_and_logged(telemetry) == (0, 4))
        found = [row.exposure for row in await log.read(after="0-0", count=9)]
        assert found == [shown(number) for number in range(4)]
    finally:
        await writer.stop()
        await client.delete(STREAM)


async def test_what_waits_when_the_service_stops_is_written_some_at_a_time() -> None:
    telemetry, log = Telemetry("test"), Gate()
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    lists = [shown(number) for number in range(2 * exposures.BATCH + 50)]
    for one in lists:
        writer.note(one)
    await writer.stop()
    assert [one for batch in log.taken for one in batch] == lists
    assert [len(batch) for batch in log.taken] == [exposures.BATCH, exposures.BATCH, 50]
    assert lost_and_logged(telemetry) == (0, len(lists))
    writer.note(shown(0))
    assert lost_and_logged(telemetry) == (1, len(lists)), "afterwards nothing is taken any more"


async def test_a_full_batch_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued, "EVERY_S", 3600.0)
    telemetry, log = Telemetry("test"), Gate()
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    for number in range(exposures.BATCH + 1):
        writer.note(shown(number))
    await until(lambda: lost_and_logged(telemetry) == (0, exposures.BATCH))
    await writer.stop()
    assert lost_and_logged(telemetry) == (0, exposures.BATCH + 1)


async def test_beyond_what_may_wait_lists_are_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued, "MOST", 3)
    telemetry, log = Telemetry("test"), Gate(opened=False)
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    for number in range(5):
        writer.note(shown(number))
    assert lost_and_logged(telemetry) == (2, 0)
    log.open.set()
    await writer.stop()
    assert lost_and_logged(telemetry) == (2, 3)
    assert log.taken == [[shown(0), shown(1), shown(2)]]


@pytest.mark.parametrize("fails", [DependencyUnavailable("away"), TypeError("what is that")])
async def test_a_log_that_fails_loses_that_batch_says_so_and_is_used_again(
    fails: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry, log = Telemetry("test"), Gate()
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    log.fails = fails
    for lost in range(1, 4):
        writer.note(shown(1))
        await until(lambda lost=lost: lost_and_logged(telemetry) == (lost, 0))  # type: ignore[misc]
    log.fails = None
    writer.note(shown(2))
    await writer.stop()
    assert lost_and_logged(telemetry) == (3, 1)
    assert log.taken == [[shown(2)]]
    assert "1 of the exposures are not in the log: " in caplog.text and str(fails) in caplog.text


async def test_with_memory_full_lists_are_lost_and_counted_and_later_ones_are_not(client: redis.asyncio.Redis) -> None:
    server = new_redis()
    full = serving_client(server.url, timeout_s=5.0)
    telemetry, log = Telemetry("test"), RedisExposureLog(full, STREAM, kept=10)
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    await full.config_set("maxmemory", 1)
    writer.note(shown(1))
    writer.note(shown(2))
    await until(lambda: lost_and_logged(telemetry) == (2, 0))
    await full.config_set("maxmemory", 0)
    writer.note(shown(3))
    await writer.stop()
    assert lost_and_logged(telemetry) == (2, 1)
    assert [row.exposure for row in await log.read(after="0-0", count=9)] == [shown(3)]
    await full.aclose()
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


async def test_while_redis_is_away_lists_are_lost_and_once_it_is_back_they_are_not() -> None:
    server = new_redis()
    away = serving_client(server.url, timeout_s=0.5)
    telemetry, log = Telemetry("test"), RedisExposureLog(away, STREAM, kept=10)
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    server.kill()
    writer.note(shown(1))
    await until(lambda: lost_and_logged(telemetry) == (1, 0))
    server.start()
    writer.note(shown(2))
    await until(lambda: lost_and_logged(telemetry) == (1, 1))
    await writer.stop()
    assert [row.exposure for row in await log.read(after="0-0", count=9)] == [shown(2)]
    await away.aclose()
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


async def test_a_log_that_hangs_does_not_hold_up_the_end_and_what_it_held_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queued, "STOP_S", 0.05)
    telemetry, log = Telemetry("test"), Gate(opened=False)
    writer = ExposureWriter(log, telemetry)
    await writer.start()
    for number in range(exposures.BATCH + 7):
        writer.note(shown(number))
    async with asyncio.timeout(20):
        await writer.stop()
    assert lost_and_logged(telemetry) == (exposures.BATCH + 7, 0)


def test_of_a_share_of_the_users_always_the_same_ones_are_wanted(client: redis.asyncio.Redis) -> None:
    users = [f"u{number}" for number in range(1000)]
    writers = [ExposureWriter(Gate(), Telemetry("test"), users_fraction=0.3) for _ in range(2)]
    wanted = [[user for user in users if writer.wants(user)] for writer in writers]
    assert wanted[0] == wanted[1]
    assert 230 < len(wanted[0]) < 370
    assert all(ExposureWriter(Gate(), Telemetry("test")).wants(user) for user in users)
