"""The archive of answers holds every one once, whoever wrote it and whenever that one was stopped; one is found by its id."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
import redis.asyncio

from infra.contracts.decisions import Basis, Decision, digest_of
from infra.contracts.errors import ContractViolation, DependencyUnavailable
from infra.contracts.exposures import Arm
from infra.contracts.ids import ItemId, UserId, VersionName
from infra.eventlog.decisions import BEGINNING, LoggedDecision, RedisDecisionLog
from infra.nearline import decision_archive
from infra.nearline.decision_archive import DecisionArchiver, end_of, find, read_decisions, spans, tally_of
from infra.nearline.decision_numbers import Tally
from infra.nearline.looking import dropped_decisions
from infra.snapshots.connection import serving_client
from infra.snapshots.storage import Storage
from tests.fixtures.redis_server import free_port

RNG = np.random.default_rng(5)


def decision(number: int) -> Decision:
    scores = RNG.normal(size=3).astype(np.float32)
    return Decision(
        request_id=f"r{number * 7919 % 10_007:05d}",
        user_id=UserId(f"u{number}"),
        request={"n": 3, "recent_items": [], "exclude": [], "deadline_ms": None},
        generation=7,
        version=VersionName("v2"),
        arm=Arm.CANARY,
        basis=Basis(1_780_000_000_000_000 + number, 40, (43,), True),
        nearline={"clicks_last_hour": number},
        items=(ItemId("i1"), ItemId("i2"), ItemId("i3")),
        scores=scores,
        list_digest=digest_of(["i1", "i2", "i3"], scores),
        columns=("a", "b"),
        features=RNG.normal(size=(3, 2)).astype(np.float32),
        decided_by="ranker",
        degraded=False,
        stage_ms={"total": 4.5},
        skipped={},
    )


@dataclass
class Desk:
    """A log and an archive of a test's own."""

    client: redis.asyncio.Redis
    stream: str
    log: RedisDecisionLog
    archive: Storage

    def archiver(self, *, records: int = 1000, seconds: float = 1e9) -> DecisionArchiver:
        return DecisionArchiver(self.log, self.archive, records=records, seconds=seconds)

    async def give(self, *numbers: int) -> None:
        await self.log.append([decision(number) for number in numbers])

    async def logged(self) -> list[LoggedDecision]:
        return await self.log.read(after=BEGINNING, count=100_000)

    def archived(self) -> list[LoggedDecision]:
        return list(read_decisions(self.archive))


@pytest_asyncio.fixture(params=["disk", "object store"])
async def desk(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    client = serving_client(redis_url, timeout_s=5.0)
    stream = f"decisions-{uuid.uuid4().hex}"
    store = str(tmp_path) if request.param == "disk" else f"memory://{uuid.uuid4().hex}"
    yield Desk(client, stream, RedisDecisionLog(client, stream, kept=100_000), Storage(store))
    await client.delete(stream)
    await client.aclose()


async def test_the_archive_holds_the_log_byte_for_byte_and_only_then_the_log_is_trimmed(desk: Desk) -> None:
    await desk.give(*range(25))
    before = await desk.logged()
    assert await desk.archiver(records=10).once(at_once=True) == 25
    assert desk.archived() == before
    assert await desk.logged() == []
    assert [span.path.count("decisions/day=") for span in spans(desk.archive)] == [1, 1, 1]
    await desk.give(25)
    (one,) = await desk.logged()
    assert await desk.archiver().once(at_once=True) == 1
    assert desk.archived() == [*before, one]
    assert end_of(desk.archive) == one.position


async def test_a_row_says_what_its_answer_says(desk: Desk) -> None:
    await desk.give(3)
    (entry,) = await desk.logged()
    await desk.archiver().once(at_once=True)
    (span,) = spans(desk.archive)
    with desk.archive.open(span.path) as file:
        table = pq.read_table(file, partitioning=None)
    assert table.schema.equals(decision_archive.SCHEMA)
    (row,) = table.to_pylist()
    told = entry.decision()
    assert (row["request_id"], row["user_id"], row["at_us"]) == (told.request_id, "u3", 1_780_000_000_000_003)
    assert (row["version"], row["generation"], row["arm"], row["decided_by"]) == ("v2", 7, "canary", "ranker")
    assert (row["position"], row["document"], row["features"]) == (entry.position, entry.document, entry.features)


async def test_it_is_written_once_enough_answers_wait_or_one_waits_for_long(desk: Desk) -> None:
    patient, by_number, by_time = desk.archiver(), desk.archiver(records=3), desk.archiver(seconds=1e-9)
    await desk.give(0, 1)
    assert [await patient.once(), await by_number.once()] == [0, 0]
    await desk.give(2)
    assert await by_number.once() == 3
    assert await patient.once() == 0, "another has written what this one held"
    await desk.give(3)
    assert await by_number.once() == 0
    assert await by_time.once() == 1
    assert len(desk.archived()) == 4


async def test_an_archiver_that_was_killed_before_the_trim_doubles_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.give(*range(9))
    before = await desk.logged()

    async def killed(**_: object) -> None:
        raise DependencyUnavailable("killed")

    with monkeypatch.context() as patched:
        patched.setattr(desk.log, "trim", killed)
        with pytest.raises(DependencyUnavailable):
            await desk.archiver(records=4).once(at_once=True)
    assert await desk.logged() == before, "what is not trimmed is still there"
    assert await desk.archiver(records=4).once(at_once=True) == 5
    assert desk.archived() == before


async def test_two_archivers_that_take_turns_at_any_step_lose_and_double_nothing(desk: Desk) -> None:
    rng = np.random.default_rng(7)
    given: list[LoggedDecision] = []
    crew = [desk.archiver(records=int(records)) for records in (2, 3, 5)]
    number = 0
    for _ in range(60):
        if rng.random() < 0.5:
            many = int(rng.integers(1, 5))
            await desk.give(*range(number, number + many))
            number += many
            known = {entry.position for entry in given}
            given += [entry for entry in await desk.logged() if entry.position not in known]
        at = int(rng.integers(0, len(crew)))
        if rng.random() < 0.2:
            crew[at] = desk.archiver(records=int(rng.integers(1, 6)))  # killed, with what it held, and started anew
        await crew[at].once(at_once=bool(rng.random() < 0.3))
        there = {entry.position for entry in (*desk.archived(), *await desk.logged())}
        assert {entry.position for entry in given} <= there
    for one in crew:
        await one.once(at_once=True)
    assert desk.archived() == given
    assert len(given) == number


async def test_stretches_that_overlap_are_read_once(desk: Desk) -> None:
    await desk.give(*range(12))
    entries = await desk.logged()
    for low, high in ((0, 5), (3, 8), (4, 6), (8, 12), (8, 10)):
        part = entries[low:high]
        desk.archive.create(decision_archive._path(part), decision_archive._parquet(part))
    assert desk.archived() == entries
    assert end_of(desk.archive) == entries[-1].position


async def test_an_answer_is_found_by_its_id_and_reading_goes_by_time(desk: Desk) -> None:
    await desk.give(*range(30))
    await desk.archiver(records=7).once(at_once=True)
    entries = desk.archived()
    for number in (0, 13, 29):
        found = find(desk.archive, decision(number).request_id)
        assert found is not None
        assert found.decision().user_id == f"u{number}"
    assert find(desk.archive, "nobody's") is None
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    assert list(read_decisions(desk.archive, since=now - hour, until=now + hour)) == entries
    assert list(read_decisions(desk.archive, since=now + hour)) == []
    assert list(read_decisions(desk.archive, until=now - hour)) == []
    assert find(desk.archive, decision(0).request_id, until=now - hour) is None
    middle = datetime.fromtimestamp(int(entries[15].position.split("-")[0]) / 1000, UTC)
    early, late = list(read_decisions(desk.archive, until=middle)), list(read_decisions(desk.archive, since=middle))
    assert early + late == entries


async def test_a_request_id_that_came_twice_gives_the_newer_answer(desk: Desk) -> None:
    twice = [replace(decision(1), user_id=UserId("old")), replace(decision(1), user_id=UserId("new"))]
    await desk.log.append(twice)
    await desk.archiver().once(at_once=True)
    found = find(desk.archive, decision(1).request_id)
    assert found is not None
    assert found.decision().user_id == "new"


async def test_what_this_release_cannot_read_is_kept_as_it_is_and_holds_nothing_up(desk: Desk) -> None:
    await desk.give(1)
    await desk.client.xadd(desk.stream, {"d": b"{}", "f": b""})
    await desk.give(2)
    before = await desk.logged()
    await desk.archiver().once(at_once=True)
    assert desk.archived() == before
    with pytest.raises(ContractViolation):
        before[1].decision()


async def test_answers_that_the_log_dropped_before_they_were_archived_are_counted(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    small = RedisDecisionLog(desk.client, desk.stream, kept=100)
    await desk.give(*range(7))
    await desk.archiver().once(at_once=True)
    assert (await dropped_decisions(desk.log, desk.archive), "DROPPED" in caplog.text) == (0, False)
    for start in range(0, 900, 100):
        await small.append([decision(number) for number in range(start, start + 100)])
    left = len(await desk.logged())
    assert left < 900
    assert await dropped_decisions(desk.log, desk.archive) == 900 - left, "while they are not archived yet"
    await desk.archiver().once(at_once=True)
    assert f"{900 - left} are gone that were not archived, {900 - left} in all" in caplog.text
    assert len(desk.archived()) == 7 + left
    await desk.client.xadd(desk.stream, {"d": b"{}", "f": b""})  # as before there were numbers
    await desk.give(1)
    await desk.client.xtrim(desk.stream, maxlen=1, approximate=False)
    assert await dropped_decisions(desk.log, desk.archive) == 900 - left + 1
    await desk.archiver().once(at_once=True)
    assert await dropped_decisions(desk.log, desk.archive) == 900 - left + 1


async def test_what_is_dropped_between_two_reads_of_an_archiver_is_counted_and_what_it_holds_is_not(desk: Desk) -> None:
    await desk.give(*range(10))
    holding = desk.archiver(records=1000)
    assert await holding.once() == 0
    await desk.give(*range(10, 30))
    await desk.client.xtrim(desk.stream, maxlen=5, approximate=False)
    assert await holding.once(at_once=True) == 15
    assert tally_of(desk.archive) == Tally(30, 15)


async def test_a_log_that_lost_its_memory_counts_from_one_again(desk: Desk) -> None:
    await desk.give(*range(10))
    await desk.archiver().once(at_once=True)
    await desk.client.delete(desk.stream)
    await desk.give(*range(4))
    await desk.client.xtrim(desk.stream, maxlen=3, approximate=False)
    await desk.archiver().once(at_once=True)
    assert tally_of(desk.archive) == Tally(4, 1)


async def test_an_archive_of_before_there_were_numbers_lacks_nothing_that_is_known(desk: Desk) -> None:
    await desk.give(*range(4))
    (*old, last) = await desk.logged()
    desk.archive.create(decision_archive._path(old), decision_archive._parquet(old, Tally(None, 0)))
    await desk.archiver().once(at_once=True)
    assert tally_of(desk.archive) == Tally(last.number, 0) == Tally(4, 0)


async def test_while_redis_is_away_nothing_is_written_and_what_was_held_is_kept(tmp_path: Path) -> None:
    client = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    archiver = DecisionArchiver(RedisDecisionLog(client, "s", kept=10), Storage(str(tmp_path)), records=3, seconds=1.0)
    with pytest.raises(DependencyUnavailable):
        await archiver.once(at_once=True)
    assert end_of(Storage(str(tmp_path))) == BEGINNING
    await client.aclose()
