"""A log that came back with less than it had, and has grown past what was read since, is not taken for the one that was read."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from infra.contracts.errors import DependencyUnavailable, InvalidRequest, OperatorError
from infra.contracts.events import shard_of
from infra.contracts.features import Deltas, digest
from infra.contracts.ids import ApplicationName
from infra.eventlog import records as wire
from infra.eventlog.protocol import Extent, LogLost
from infra.eventlog.redis_streams import RedisStreamLog
from infra.nearline import looking, losses
from infra.nearline.archive import end_of, read_archive
from infra.nearline.members import Members
from infra.nearline.opening import stream_layout
from infra.nearline.resuming import resume
from infra.nearline.state_terms import StateTerms
from infra.nearline.worker import Worker
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.nearline_shop import now_us, until
from tests.fixtures.redis_server import RedisProcess
from tests.unit.infra.nearline.scene import HORIZON, Scene, event, scene

SHARD = shard_of("user", "u0")
OTHER = ApplicationName("other")


SENT = [event(number, kind="search", item=number) for number in range(100)]
"""Each is one record of SHARD."""


@dataclass
class Split:
    """A state in one Redis and its log in another, which dies and comes back."""

    stage: Scene
    server: RedisProcess
    kept: Path | None = None

    def keep(self) -> None:
        """What is on the disk now is what a crash will leave."""
        self.kept = self.server.folder / "kept"
        shutil.copytree(self.server.folder / "appendonlydir", self.kept)

    def crash(self) -> None:
        """The log comes back with what was kept, or with nothing."""
        self.server.kill()
        shutil.rmtree(self.server.folder / "appendonlydir")
        if self.kept is not None:
            shutil.copytree(self.kept, self.server.folder / "appendonlydir")
        self.server.start()

    def restart(self) -> None:
        self.server.kill()
        self.server.start()

    @asynccontextmanager
    async def working(self, name: str) -> AsyncIterator[asyncio.Task[None]]:
        stage = self.stage
        members, terms = Members(stage.client, stage.application, name), StateTerms(stage.client, stage.application)
        worker = Worker(stage.log, stage.store, stage.plan, members, terms=terms, name=name, horizon=HORIZON)
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield task
        finally:
            stop.set()
            with contextlib.suppress(LogLost):
                await task

    async def count(self, name: str = "a") -> None:
        """A worker counts all that the log has."""

        async def is_counted() -> bool:
            return (await self.stage.store.offsets())[SHARD] == (await self.extent()).tip

        async with self.working(name) as task:
            await until(is_counted, working=[task])

    async def extent(self) -> Extent:
        """Of SHARD; asked again where a connection has ended."""
        while True:
            with contextlib.suppress(DependencyUnavailable):
                return (await self.stage.log.extents([SHARD]))[SHARD]

    async def send(self, numbers: range) -> None:
        """As a producer does: again where the log did not answer."""
        while True:
            with contextlib.suppress(DependencyUnavailable):
                await self.stage.append(SENT[number] for number in numbers)
                return

    async def skip(self) -> losses.Skipped:
        stage = self.stage
        terms = StateTerms(stage.client, stage.application)
        log_client = serving_client(self.server.url, timeout_s=5.0)
        given = losses.Scene(
            stage.application, stage.log, stage.store, terms, stage.archive, stage.plan, HORIZON, log_client
        )
        try:
            return await losses.skip(given, SHARD, owner="operator", reason="a test")
        finally:
            await log_client.aclose()

    async def archived(self) -> list[str]:
        """The ids of the archive's events, in order."""
        pieces = read_archive(self.stage.archive, SHARD, after=0, upto=end_of(self.stage.archive, SHARD))
        return [record.event_id for piece in pieces for record in wire.decode(piece.payloads)]

    async def is_of(self, numbers: Iterable[int]) -> bool:
        """Whether the state is that of those events, each counted once."""
        stage, moment = self.stage, now_us()
        found = await looking.digests(stage.client, stage.application, stage.plan, moment)
        wanted: Deltas = {}
        stage.plan.accumulate([record for one in numbers for record in SENT[one].records()], wanted)
        return found.digests[SHARD] == digest(wanted, stage.plan, moment)

    async def is_lost(self) -> bool:
        stage = self.stage
        return (await looking.status(stage.log, stage.client, stage.application, stage.archive))[SHARD].is_lost


@pytest_asyncio.fixture
async def split(redis_url: str, own_redis: RedisProcess, tmp_path: Path) -> AsyncIterator[Split]:
    async with scene(redis_url, str(tmp_path / "store"), log_url=own_redis.url) as stage:
        yield Split(stage, own_redis)


async def test_an_empty_log_that_grew_past_the_state_stops_a_worker_and_an_archiver(split: Split) -> None:
    await split.send(range(10))
    await split.count()
    archiver = split.stage.archiver()
    assert await archiver.once(at_once=True) == 10
    split.crash()
    await split.send(range(20, 35))
    assert await split.is_lost()
    for name in ("a", "b"):
        async with split.working(name) as task:
            with pytest.raises(
                LogLost, match=f"Shard {SHARD} of the log is another one beyond 0; it was read up to 10"
            ):
                await asyncio.wait_for(asyncio.shield(task), 60)
    for one in (archiver, split.stage.archiver()):
        with pytest.raises(LogLost, match="another one beyond 0; it was read up to 10"):
            await one.once(at_once=True)
    assert await split.stage.trimmer().once() == {}, "nobody has read what it holds"
    assert (await split.stage.store.offsets())[SHARD] == 10 and await split.archived() == [f"e{n}" for n in range(10)]


async def test_a_worker_that_works_meanwhile_is_stopped_as_well(split: Split) -> None:
    await split.send(range(10))
    await split.count()
    async with split.working("b") as task:
        split.server.kill()
        shutil.rmtree(split.server.folder / "appendonlydir")
        split.server.start()
        await split.send(range(20, 35))
        with pytest.raises(LogLost, match="another one beyond 0"):
            await asyncio.wait_for(asyncio.shield(task), 60)


async def test_a_log_that_lost_its_tail_and_grew_past_the_state_stops_a_worker(split: Split) -> None:
    await split.send(range(10))
    split.keep()
    await split.send(range(10, 20))
    await split.count()
    split.crash()
    await split.send(range(20, 35))
    assert await split.is_lost()
    async with split.working("b") as task:
        with pytest.raises(LogLost, match="another one beyond 10; it was read up to 20"):
            await asyncio.wait_for(asyncio.shield(task), 60)


async def test_a_log_that_lost_only_what_nobody_had_read_goes_on(split: Split) -> None:
    await split.send(range(10))
    await split.count()
    split.keep()
    await split.send(range(10, 20))
    split.crash()
    await split.send(range(20, 35))
    assert not await split.is_lost()
    await split.count("b")
    assert await split.is_of([*range(10), *range(20, 35)])


async def test_a_log_that_starts_again_with_all_it_had_is_the_same(split: Split) -> None:
    stage = split.stage
    for turn in range(40):  # more than the terms it remembers
        await split.send(range(2 * turn, 2 * turn + 1))
        if turn % 8 == 0:
            await split.count(f"w{turn}")
            await stage.archiver().once(at_once=True)
        split.restart()
        await split.send(range(2 * turn + 1, 2 * turn + 2))
    await split.count("last")
    await stage.archiver().once(at_once=True)
    assert await split.is_of(range(80)) and not await split.is_lost()
    assert len((await split.extent()).terms) == 32


async def test_a_start_after_which_nothing_comes_is_no_new_term(split: Split) -> None:
    await split.send(range(3))
    split.restart()
    await split.send(range(2))  # sent twice
    split.restart()
    before = (await split.extent()).terms
    assert [one.first for one in before] == [1, 4]
    await split.send(range(2, 4))
    assert (await split.extent()).terms == before


async def test_one_log_does_not_hide_anothers_start(split: Split) -> None:
    """Two applications in one Redis: the first one that appends teaches the server its script."""
    other = RedisStreamLog(serving_client(split.server.url, timeout_s=5.0), stream_layout(OTHER, horizon=HORIZON))
    records = [record for one in SENT[:4] for record in one.records()]
    await other.append(records[:2])
    split.restart()
    await split.send(range(1))
    with pytest.raises(DependencyUnavailable):  # its connection has ended
        await other.append(records[2:])
    await other.append(records[2:])
    assert [one.first for one in (await other.extents([SHARD]))[SHARD].terms] == [1, 3]
    await other.close()


async def test_a_state_and_an_archive_of_before_there_were_terms_take_the_log_s_on(split: Split) -> None:
    await split.send(range(10))
    await split.count()
    stage, position = split.stage, keys.nearline_position(split.stage.application, SHARD)
    assert await stage.client.hdel(position, "term") == 1
    split.restart()
    await split.send(range(10, 12))
    assert not await split.is_lost()
    await split.count("b")
    assert await stage.client.hget(position, "term") == (await split.extent()).terms[-1].id.encode()
    assert await split.is_of(range(12))


async def test_skip_lets_what_came_since_go_on_behind_what_was_read(split: Split) -> None:
    await split.send(range(10))
    await split.stage.archiver().once(at_once=True)
    await split.send(range(10, 12))
    await split.count()
    split.crash()
    await split.send(range(9, 10))  # sent twice: the archive has it
    await split.send(range(20, 35))
    done = await split.skip()
    assert (done.before, done.after, done.from_archive, done.lost) == (12, 12, 0, 0)
    assert not await split.is_lost()
    with pytest.raises(InvalidRequest, match="has lost nothing"):
        await split.skip()
    await split.count("b")
    await split.stage.archiver().once(at_once=True)
    assert await split.is_of([*range(12), *range(20, 35)])
    assert await split.archived() == [f"e{n}" for n in (*range(10), *range(20, 35))]
    assert end_of(split.stage.archive, SHARD) == 27


async def test_skip_after_a_lost_tail_archives_what_is_left_and_moves_the_rest(split: Split) -> None:
    await split.send(range(4))
    await split.stage.archiver().once(at_once=True)
    await split.send(range(4, 10))
    split.keep()
    await split.send(range(10, 20))
    await split.count()
    split.crash()
    await split.send(range(30, 45))
    done = await split.skip()
    assert (done.before, done.after, done.from_archive, done.lost) == (20, 20, 0, 0)
    split.restart()
    await split.send(range(45, 47))
    await split.count("b")
    await split.stage.archiver().once(at_once=True)
    assert await split.is_of([*range(20), *range(30, 47)])
    assert await split.archived() == [f"e{n}" for n in (*range(10), *range(30, 47))]
    assert end_of(split.stage.archive, SHARD) == 37 and not await split.is_lost()


async def test_skip_is_refused_where_the_archive_has_read_on_in_the_other_log(split: Split) -> None:
    """The state counted the lost tail, the archive had not reached it, and has gone on with what came instead."""
    await split.send(range(10))
    await split.stage.archiver().once(at_once=True)
    split.keep()
    await split.send(range(10, 20))
    await split.count()
    split.crash()
    await split.send(range(20, 35))
    await split.stage.archiver().once(at_once=True)
    assert await split.is_lost()
    with pytest.raises(
        OperatorError, match=r"beyond 10\. State \(up to 20\) and archive \(up to 25\) differ.*--restore"
    ):
        await split.skip()


async def test_a_restore_lets_a_log_that_grew_past_the_archive_go_on_behind_it(split: Split) -> None:
    stage = split.stage
    await split.send(range(10))
    await stage.archiver().once(at_once=True)
    split.crash()
    await split.send(range(20, 35))
    log_client = serving_client(split.server.url, timeout_s=5.0)
    ask = (stage.log, log_client, stage.application, stage.archive, SHARD)
    assert await resume(*ask, upto=10, horizon=HORIZON) == 15
    assert await resume(*ask, upto=10, horizon=HORIZON) == 0
    await log_client.aclose()
    await stage.archiver().once(at_once=True)
    assert await split.archived() == [f"e{n}" for n in (*range(10), *range(20, 35))]
