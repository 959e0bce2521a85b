"""Several processes append at once and are killed at it: offsets without holes, and nothing that was acknowledged is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from infra.eventlog import records as wire
from infra.eventlog.redis_streams import RedisStreamLog
from infra.snapshots.connection import serving_client
from tests.fixtures.proof import sized
from tests.unit.infra.eventlog.appender import NUMBERS
from tests.unit.infra.eventlog.scenes import ALL, drained, everything, layout

ENOUGH = sized(4_000, full=100_000)


@pytest.fixture
def appenders(redis_url: str, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    found = []
    for number in range(3):
        with (tmp_path / f"{number}.log").open("wb") as said:
            words = [sys.executable, "-m", "tests.unit.infra.eventlog.appender", redis_url, str(number)]
            found.append(subprocess.Popen(words, stdout=said))
    yield found
    for process in found:
        process.kill()
        process.wait()


def acknowledged(folder: Path) -> list[tuple[int, int, int]]:
    """(shard, offset, number) of all answers; a line that was cut off by the kill was never said."""
    found = []
    for path in folder.glob("*.log"):
        *lines, _ = path.read_text().split("\n")
        found += [(shard, offset, number) for line in lines for shard, offset, number in json.loads(line)]
    return found


async def test_what_processes_append_at_once_has_offsets_without_holes_and_none_is_lost(
    redis_url: str, tmp_path: Path, appenders: list[subprocess.Popen[bytes]]
) -> None:
    log = RedisStreamLog(serving_client(redis_url, timeout_s=30.0), layout())
    after, seen = dict(ALL), dict[tuple[int, int], str]()
    while len(seen) < ENOUGH or len({number // NUMBERS for _, _, number in acknowledged(tmp_path)}) < len(appenders):
        assert all(process.poll() is None for process in appenders)
        await drained(
            log,
            after,
            count=50,
            take=lambda piece: seen.update(
                ((piece.shard, offset), one.event_id)
                for offset, one in zip(piece.offsets, wire.decode(piece.payloads), strict=True)
            ),
        )
    for process in appenders:
        process.kill()
        process.wait()
    held = {
        (shard, offset): one.event_id
        for shard, records in (await everything(log)).items()
        for offset, one in enumerate(records, start=1)
    }
    assert held.items() >= seen.items(), "what was read while they wrote is what stands there"
    assert len(set(held.values())) == len(held), "no record stands twice"
    extents = await log.extents(range(16))
    assert {shard: extent.tip for shard, extent in extents.items()} == {
        shard: sum(1 for at, _ in held if at == shard) for shard in range(16)
    }
    said = acknowledged(tmp_path)
    assert {number // NUMBERS for _, _, number in said} == {0, 1, 2}
    assert [one for one in said if held.get(one[:2]) != f"e{one[2]}"] == []
    assert len(said) > len({number for _, _, number in said}), "some were sent twice"
    await log.close()
