"""The command line that makes one answer again: exact, or each difference and exit code 1."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import typer

from infra.config.settings import settings
from infra.contracts.errors import InvalidRequest
from infra.eventlog.decisions import LoggedDecision
from infra.nearline import decision_archive
from infra.nearline.moments import moment, moment_or_none
from infra.snapshots.storage import Storage
from spark_jobs.training import replay
from tests.unit.spark_jobs.training.served.conftest import Past


def said(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], str]:
    """The JSON on stdout, and what people read."""
    captured = capsys.readouterr()
    found: dict[str, object] = json.loads(captured.out.splitlines()[-1])
    return found, captured.err


def test_every_tenth_answer_is_found_and_exact(chosen: Past, capsys: pytest.CaptureFixture[str]) -> None:
    for entry in chosen.entries[::10]:
        decision = entry.decision()
        replay.main(decision.request_id, json=True)
        told, people = said(capsys)
        assert (told["exact"], told["differences"], people) == (True, [], "")
        assert told["logged"] == told["made_again"]
        assert [row["item_id"] for row in told["logged"]] == list(decision.items)  # type: ignore[attr-defined]


def test_people_see_both_lists_and_that_they_are_the_same(chosen: Past, capsys: pytest.CaptureFixture[str]) -> None:
    decision = next(entry.decision() for entry in chosen.entries if len(entry.decision().items) > 5)
    replay.main(decision.request_id)
    _, people = said(capsys)
    assert "exact: " in people and "to the bit" in people
    assert people.count(decision.items[0]) >= 2


def test_one_bit_that_was_changed_in_the_archive_is_found_and_is_exit_code_1(
    chosen: Past, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = next(entry for entry in chosen.entries if len(entry.decision().features) > 4)
    bits = np.frombuffer(entry.features, np.uint32).copy()
    bits[7] ^= 1
    milliseconds = int(datetime(2031, 1, 1, tzinfo=UTC).timestamp() * 1000)
    document = entry.document.replace(entry.decision().request_id.encode(), b"torn-1")
    torn = LoggedDecision(f"{milliseconds}-0", document, bits.tobytes())
    path = decision_archive._path([torn])
    chosen.archive.create(path, decision_archive._parquet([torn]))
    try:
        with pytest.raises(typer.Exit) as ended:
            replay.main("torn-1")
        told, people = said(capsys)
    finally:
        chosen.archive.remove(path)
    assert ended.value.exit_code == 1
    assert (told["exact"], told["mismatches"]) == (False, 1)
    differences = told["differences"]
    assert isinstance(differences, list)
    (difference,) = differences
    column = entry.decision().columns[7]
    assert difference.startswith(f"features: {column} of {entry.decision().items[0]} was ")
    assert column in people and "exact" not in people


def test_an_answer_that_the_archive_has_not_is_said(chosen: Past) -> None:
    with pytest.raises(InvalidRequest, match="no answer 'nobody'"):
        replay.main("nobody")
    known = chosen.entries[0].decision().request_id
    with pytest.raises(InvalidRequest, match="no answer"):
        replay.main(known, until="2001-01-01T00:00:00Z")


def test_a_store_without_an_archive_has_no_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: Past
) -> None:
    monkeypatch.setenv("HEADGATE_STORE", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(InvalidRequest, match="no answer"):
        replay.main("r1")
    assert Storage(str(tmp_path)).names() == []


def test_a_moment_wants_a_zone() -> None:
    assert moment("2026-05-01T14:00:00+02:00", flag="--since") == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert moment_or_none("", flag="--since") is None
    for wrong in ("2026-05-01T14:00:00", "yesterday"):
        with pytest.raises(InvalidRequest, match="--since"):
            moment(wrong, flag="--since")
