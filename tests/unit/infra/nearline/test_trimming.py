"""A record leaves the log once the archive has it, it is counted and everybody has read it: whatever happens in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from infra.contracts.errors import InvalidRequest, OperatorError
from infra.contracts.events import SHARDS, shard_of
from infra.nearline.archive import Archiver, end_of, read_archive
from infra.nearline.trimming import Consumers
from tests.fixtures.proof import sized
from tests.unit.infra.nearline.scene import HORIZON, Scene, event, scene

OF_U0 = shard_of("user", "u0")


@pytest_asyncio.fixture
async def stage(redis_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(redis_url, str(tmp_path)) as made:
        yield made


async def first_of(stage: Scene, shard: int) -> int:
    return (await stage.log.extents([shard]))[shard].first


async def test_what_is_archived_and_counted_goes_but_for_the_newest(stage: Scene) -> None:
    await stage.append([event(number, kind="search") for number in range(30)])
    await stage.work()
    await stage.archiver().once(at_once=True)
    assert await stage.trimmer(kept=10).once() == {OF_U0: 20}
    assert await first_of(stage, OF_U0) == 21
    assert await stage.trimmer(kept=10).once() == {}


async def test_what_is_not_counted_stays(stage: Scene) -> None:
    await stage.append([event(number, kind="search") for number in range(30)])
    await stage.archiver().once(at_once=True)
    assert await stage.trimmer().once() == {}
    await stage.work(count=7)
    assert await stage.trimmer().once() == {OF_U0: 7}


async def test_what_is_not_archived_stays(stage: Scene) -> None:
    await stage.append([event(number, kind="search") for number in range(5)])
    await stage.archiver().once(at_once=True)
    await stage.append([event(number, kind="search") for number in range(5, 30)])
    await stage.work()
    assert await stage.trimmer().once() == {OF_U0: 5}


async def test_what_another_reader_waits_for_stays(stage: Scene) -> None:
    consumers = Consumers(stage.client, stage.application)
    await consumers.note("training", dict.fromkeys(range(SHARDS), 0))
    await consumers.note("audit:2", {OF_U0: 9})
    await stage.append([event(number, kind="search") for number in range(30)])
    await stage.work()
    await stage.archiver().once(at_once=True)
    assert await stage.trimmer().once() == {}
    await consumers.note("training", {OF_U0: 12})
    assert await stage.trimmer().once() == {OF_U0: 9}
    await consumers.note("audit:2", {OF_U0: 30})
    assert await stage.trimmer().once() == {OF_U0: 12}


async def test_a_reader_of_somebody_elses_begins_at_the_oldest_record_and_is_waited_for_until_it_is_forgotten(
    stage: Scene,
) -> None:
    await stage.append([event(number, kind="search") for number in range(30)])
    await stage.work()
    await stage.archiver().once(at_once=True)
    await stage.trimmer(kept=20).once()
    consumers = Consumers(stage.client, stage.application)
    after = await consumers.begin("training", stage.log)
    assert after[OF_U0] == 10 and after.keys() == set(range(SHARDS))
    assert await stage.trimmer().once() == {}
    for piece in await stage.log.read(after, count=5):
        after[piece.shard] = piece.upto
    await consumers.note("training", after)
    assert await stage.trimmer().once() == {OF_U0: 15}
    assert await consumers.begin("training", stage.log) == after, "it goes on where it was"
    assert await consumers.lags(stage.log) == {"training": 15}
    with pytest.raises(InvalidRequest, match="'train' reads nothing; there are: training"):
        await consumers.forget("train")
    await consumers.forget("training")
    assert await stage.trimmer().once() == {OF_U0: 22} and await consumers.lags(stage.log) == {}


async def test_too_few_kept_records_are_refused(stage: Scene) -> None:
    with pytest.raises(OperatorError, match=r"KEPT_RECORDS=7 is less than HEADGATE_LOG_DUPLICATE_HORIZON=8.*Raise"):
        stage.trimmer(kept=HORIZON - 1)


Step = tuple[Literal["append", "work", "archive", "archive killed", "new archiver", "catch up", "trim", "read"], int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "append",
                "append",
                "work",
                "archive",
                "archive killed",
                "new archiver",
                "catch up",
                "trim",
                "trim",
                "read",
            ]
        ),
        st.integers(1, 40),
    ),
    min_size=5,
    max_size=40,
)
ENDING: list[Step] = [("append", 40), ("catch up", 1), ("append", 3), ("trim", 1), ("work", 2), ("trim", 1)]


@dataclass
class World:
    """Two archivers, a reader of its own, and what the log was given."""

    stage: Scene
    archivers: list[Archiver]
    reader: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(SHARDS), 0))
    payloads: dict[tuple[int, int], bytes] = field(default_factory=dict)
    sent: int = 0
    trimmed: int = 0

    async def step(self, what: str, size: int) -> None:
        stage = self.stage
        if what == "append":
            await self._append(size)
        elif what == "work":
            await stage.work(count=size)
        elif what == "archive":
            await self.archivers[size % 2].once(at_once=True)
        elif what == "archive killed":
            task = asyncio.create_task(stage.archiver(records=size).once(at_once=True))
            for _ in range(size):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        elif what == "new archiver":
            self.archivers[size % 2] = stage.archiver(records=size)
        elif what == "catch up":
            for part in ("work", "archive", "read"):
                await self.step(part, 1000)
        elif what == "trim":
            self.trimmed += len(await stage.trimmer().once())
        else:
            found = await stage.log.read(self.reader, count=size)
            self.reader |= {piece.shard: piece.upto for piece in found}
            await Consumers(stage.client, stage.application).note("reader", self.reader)

    async def _append(self, size: int) -> None:
        before = {shard: extent.tip for shard, extent in (await self.stage.log.extents(range(SHARDS))).items()}
        await self.stage.append(event(self.sent + at, user=at % 2, kind="search") for at in range(size))
        self.sent += size
        for piece in await self.stage.log.read(before, count=1000):
            self.payloads |= {
                (piece.shard, offset): payload for offset, payload in zip(piece.offsets, piece.payloads, strict=True)
            }

    async def check(self) -> None:
        """Every record is in the log or in the archive, and nobody who reads on finds a loss."""
        stage = self.stage
        counted = await stage.store.offsets()
        extents = await stage.log.extents(range(SHARDS))
        for shard, extent in extents.items():
            archived = end_of(stage.archive, shard)
            held = {
                (shard, offset): payload
                for piece in read_archive(stage.archive, shard, after=0, upto=archived)
                for offset, payload in zip(piece.offsets, piece.payloads, strict=True)
            }
            for piece in await stage.log.read({shard: extent.first - 1}, count=10_000):
                held |= {(shard, at): payload for at, payload in zip(piece.offsets, piece.payloads, strict=True)}
            assert held == {place: payload for place, payload in self.payloads.items() if place[0] == shard}
            assert extent.tip - (extent.first - 1) >= min(HORIZON, extent.tip)
            for offset in (counted[shard], archived, self.reader[shard]):
                await stage.log.read({shard: offset}, count=1)  # raises LogLost


def test_every_record_is_always_in_the_log_or_in_the_archive(redis_url: str) -> None:
    trims = []

    async def play(store: str, steps: list[Step]) -> None:
        async with scene(redis_url, store) as stage:
            world = World(stage, [stage.archiver(), stage.archiver(records=3)])
            await world.step("read", 1)
            for what, size in (*steps, *ENDING):
                await world.step(what, size)
                await world.check()
            trims.append(world.trimmed)

    @settings(max_examples=sized(40, full=400), deadline=None, phases=[Phase.generate])  # to shrink takes minutes
    @given(steps=STEPS)
    def property_of(steps: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as store:
            asyncio.run(play(store, steps))

    property_of()
    assert all(trims), "a history trimmed nothing: the property was empty"
