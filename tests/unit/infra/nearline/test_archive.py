"""The archive holds every record of the log once, whoever wrote it, and whenever that one was stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts.errors import ContractViolation
from infra.contracts.events import SHARDS, shard_of
from infra.eventlog import records as wire
from infra.eventlog.protocol import LogLost
from infra.nearline import archive
from infra.nearline.archive import end_of, read_archive, stretches, write_lost
from infra.snapshots.storage import Storage
from tests.unit.infra.nearline.scene import Scene, event, scene, some


@pytest_asyncio.fixture(params=["disk", "object store"])
async def stage(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    store = str(tmp_path) if request.param == "disk" else f"memory://{tmp_path.name}"
    async with scene(redis_url, store) as made:
        yield made


async def everything(stage: Scene) -> dict[int, list[tuple[int, bytes]]]:
    """What the archive has, by shard."""
    out = {}
    for shard in range(SHARDS):
        pieces = list(read_archive(stage.archive, shard, after=0, upto=end_of(stage.archive, shard)))
        out[shard] = [pair for piece in pieces for pair in zip(piece.offsets, piece.payloads, strict=True)]
    return out


async def logged(stage: Scene) -> dict[int, list[tuple[int, bytes]]]:
    found = await stage.log.read(dict.fromkeys(range(SHARDS), 0), count=100_000)
    whole = {piece.shard: list(zip(piece.offsets, piece.payloads, strict=True)) for piece in found}
    return {shard: whole.get(shard, []) for shard in range(SHARDS)}


async def test_the_archive_holds_the_log_byte_for_byte(stage: Scene) -> None:
    await stage.append(some(range(300)))
    written = await stage.archiver().once(at_once=True)
    assert written == sum(len(offsets) for offsets in stage.appended.values())
    assert await everything(stage) == await logged(stage)


async def test_a_row_says_what_its_record_says(stage: Scene) -> None:
    (sent,) = [event(1, user=3, item=4, kind="purchase")]
    await stage.append([sent])
    await stage.archiver().once(at_once=True)
    shard = shard_of("user", "u3")
    (stretch,) = stretches(stage.archive, shard)
    assert stretch.path == f"shard={shard:02d}/000000000001-{stretch.upto:012d}.parquet"
    with stage.archive.open(stretch.path) as file:
        table = pq.read_table(file)
    assert table.schema.equals(archive.SCHEMA)
    row = next(row for row in table.to_pylist() if row["kind"] == "user")
    (record,) = wire.decode([row["payload"]])
    assert (row["entity_id"], row["event_type"], row["event_id"]) == ("u3", "purchase", "e1")
    assert row["event_time_us"] == record.event_time_us == sent.records()[0].event_time_us
    assert json.loads(row["values"]) == record.values == {"user_id": "u3", "item_id": "i4"}
    assert row["offset"] == 1 and row["logged_ms"] > 0


async def test_a_shard_is_written_once_enough_records_wait_or_one_waits_for_long(stage: Scene) -> None:
    patient, by_number, by_time = stage.archiver(), stage.archiver(records=3), stage.archiver(seconds=1e-9)
    await stage.append([event(number, kind="search") for number in range(2)])
    assert [await patient.once(), await by_number.once()] == [0, 0]
    await stage.append([event(2, kind="search")])
    assert await patient.once() == 0
    assert await by_number.once() == 3
    await stage.append([event(3, kind="search")])
    assert await by_number.once() == 0
    await by_time.once()
    assert end_of(stage.archive, shard_of("user", "u0")) == 4
    assert await by_time.once() == 0, "nothing new, nothing written"


async def test_a_file_holds_no_more_than_the_setting_says(stage: Scene) -> None:
    await stage.append([event(number, kind="search") for number in range(10)])
    await stage.archiver(records=4).once(at_once=True)
    found = stretches(stage.archive, shard_of("user", "u0"))
    assert [(stretch.after, stretch.upto) for stretch in found] == [(0, 4), (4, 8), (8, 10)]


async def test_archivers_at_once_lose_and_double_nothing(stage: Scene) -> None:
    archivers = [stage.archiver(records=records) for records in (2, 3, 1000)]
    for start in range(0, 200, 20):
        await stage.append(some(range(start, start + 20)))
        await asyncio.gather(*(archiver.once(at_once=True) for archiver in archivers))
    files = sum(len(stage.archive.names(name)) for name in stage.archive.names())
    taken = sum(len(stretches(stage.archive, shard)) for shard in range(SHARDS))
    assert files > taken, "no two files overlapped: this run proves nothing"
    assert await everything(stage) == await logged(stage)


async def test_an_archiver_goes_on_where_any_other_stopped(stage: Scene) -> None:
    for start in range(0, 60, 10):
        await stage.append(some(range(start, start + 10)))
        await stage.archiver(records=3).once(at_once=True)
    assert await everything(stage) == await logged(stage)


async def test_what_was_trimmed_before_it_was_archived_is_loudly_lost(stage: Scene) -> None:
    await stage.append([event(number, kind="search") for number in range(6)])
    shard = shard_of("user", "u0")
    await stage.archiver().once(at_once=True)
    await stage.append([event(number, kind="search") for number in range(6, 12)])
    await stage.log.trim(shard, upto=8)
    with pytest.raises(LogLost, match=f"Shard {shard} .* begins at 9; wanted is 7"):
        await stage.archiver().once(at_once=True)
    write_lost(stage.archive, shard, after=6, upto=8, reason="a test")
    await stage.archiver().once(at_once=True)
    pieces = list(read_archive(stage.archive, shard, after=0, upto=12))
    assert [offset for piece in pieces for offset in piece.offsets] == [1, 2, 3, 4, 5, 6, 9, 10, 11, 12]
    assert [stretch.lost for stretch in stretches(stage.archive, shard)] == [False, True, False]


async def test_a_log_that_came_back_shorter_than_the_archive_is_loudly_lost(stage: Scene) -> None:
    await stage.append([event(number, kind="search") for number in range(6)])
    await stage.archiver().once(at_once=True)
    await stage.lose_redis()
    await stage.append([event(number, kind="search") for number in range(2)])
    with pytest.raises(LogLost, match="ends at 2; it was read up to 6"):
        await stage.archiver().once()


async def test_a_stretch_is_read_from_the_middle_of_files(stage: Scene) -> None:
    await stage.append([event(number, kind="search") for number in range(10)])
    await stage.archiver(records=4).once(at_once=True)
    shard = shard_of("user", "u0")
    pieces = list(read_archive(stage.archive, shard, after=2, upto=9))
    assert [(piece.after, piece.upto) for piece in pieces] == [(2, 4), (4, 8), (8, 9)]
    assert [offset for piece in pieces for offset in piece.offsets] == [3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(ContractViolation, match="ends at offset 10; wanted are records up to 11"):
        list(read_archive(stage.archive, shard, after=2, upto=11))


SPANS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 12)), max_size=12)


@given(spans=SPANS, after=st.integers(0, 35), upto=st.integers(0, 45))
def test_each_offset_is_taken_once_whatever_files_there_are(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], after: int, upto: int
) -> None:
    storage = Storage(str(tmp_path_factory.mktemp("archive", numbered=True)))
    held = set()
    for first, more in spans:
        storage.write(f"shard=05/{first:012d}-{first + more:012d}.parquet", b"")
        held |= set(range(first, first + more + 1))
    storage.write("shard=05/000000000001-000000000040.parquet.0123.draft", b"")
    end = next(offset for offset in range(1, 60) if offset not in held) - 1
    assert end_of(storage, 5) == end
    found = stretches(storage, 5, after=after, upto=upto)
    taken = [offset for stretch in found for offset in range(stretch.after + 1, stretch.upto + 1)]
    assert taken == list(range(after + 1, min(end, upto) + 1))
    for stretch in found:
        first, last = (int(part) for part in stretch.path.split("/")[1].split(".")[0].split("-"))
        assert first - 1 <= stretch.after < stretch.upto <= last
