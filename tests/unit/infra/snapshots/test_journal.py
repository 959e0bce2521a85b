"""The journal of flips: one record a generation, whoever writes first; voids; its end by one read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.contracts.ids import VersionName
from infra.contracts.snapshots import FlipKind, FlipRecord, Target
from infra.snapshots.journal import Journal, Tip
from infra.snapshots.storage import Storage


@pytest.fixture(params=["disk", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    root = str(tmp_path) if request.param == "disk" else f"memory://journal-{tmp_path.name}"
    return Journal(Storage(root))


def record(generation: int, *, actor: str = "t") -> FlipRecord:
    path = tuple(Target(VersionName(f"v{number}"), f"d{number}") for number in range(1, generation + 1))
    before = path[-2] if generation > 1 else None
    at = datetime(2024, 6, 1, generation % 24, tzinfo=UTC)
    return FlipRecord(generation, FlipKind.FLIP, at, actor, "why", before, generation - 1, path)


def test_an_empty_journal_has_no_end(journal: Journal) -> None:
    assert journal.tip() == Tip(None, 0)
    assert list(journal.newest(5)) == []


def test_what_was_written_is_read_as_it_was(journal: Journal) -> None:
    for generation in (1, 2, 11):
        assert journal.append(record(generation))
        assert journal.tip() == Tip(record(generation), generation)
    assert [found.generation for found, _ in journal.newest(2)] == [11, 2]
    assert journal.read(2) == record(2)
    assert record(2).alias.version == "v2" and record(2).alias.generation == 2


def test_a_generation_is_taken_once(journal: Journal) -> None:
    assert journal.append(record(1, actor="first"))
    assert not journal.append(record(1, actor="second"))
    assert journal.read(1).actor == "first"


def test_of_many_writers_of_a_generation_one_wins(tmp_path: Path) -> None:
    journal = Journal(Storage(str(tmp_path)))
    for generation in range(1, 11):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda at, g=generation: journal.append(record(g, actor=f"w{at}")), range(8)))
        assert sum(won) == 1
        assert journal.read(generation).actor == f"w{won.index(True)}"


def test_a_void_flip_is_passed_over_and_its_generation_stays_used_up(journal: Journal) -> None:
    for generation in (1, 2, 3):
        journal.append(record(generation))
    journal.void(3, actor="t", reason="its snapshot is gone")
    journal.void(3, actor="t", reason="said again")
    assert journal.tip() == Tip(record(2), 3)
    assert not journal.append(record(3))
    (newest, void), *older = journal.newest(5)
    assert newest.generation == 3 and void is not None and void.reason == "its snapshot is gone"
    assert all(void is None for _, void in older)
    for generation in (1, 2):
        journal.void(generation, actor="t", reason="all of them")
    assert journal.tip() == Tip(None, 3)
