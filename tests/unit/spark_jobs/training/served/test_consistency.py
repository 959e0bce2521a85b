"""The hourly job: nothing differs from what was served, the usual join does, and one changed bit turns it red."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from infra.catalog.features.nearline import plan_of
from infra.contracts.errors import InvalidRequest, ValidationRefused
from infra.eventlog.decisions import LoggedDecision, encoded
from infra.nearline.consistency_rows import NO_RUN, AnswerRow, file_rows, read_rows, runs_of
from spark_jobs.training import consistency
from spark_jobs.training.consistency import check, control, sampled, summary
from tests.fixtures.answers import NAME
from tests.unit.spark_jobs.training.served.conftest import ANSWERS, Past
from validation import consistency as judge


async def rows_of(past: Past, entries: list[LoggedDecision]) -> list[AnswerRow]:
    return await check(entries, past.offline(), control(past.archive, plan_of(NAME), entries))


def test_no_value_differs_and_joined_by_event_time_some_would(chosen: Past, capsys: pytest.CaptureFixture[str]) -> None:
    consistency.main(sample=ANSWERS, until=chosen.until.isoformat())
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["sampled"], said["replayed"]) == (ANSWERS, ANSWERS)
    assert (said["mismatches"], said["answers_that_differ"]) == (0, 0)
    assert said["values"] > 20_000
    assert said["as_of_mismatches"] > 0, "the control: joined by event time, some are not what was served"
    assert 0 < said["as_of_answers_that_differ"] < ANSWERS
    judge.main(run=said["run"])
    judged = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert judged["verdict"] == "passed"
    assert judged["as_of_mismatch_rate"] > 0
    runs = runs_of(chosen.store, NAME)
    page = runs.read(f"{said['run']}/report.html").decode()
    assert "passed" in page and "Control" in page
    results = json.loads(runs.read(f"{said['run']}/great-expectations.json"))
    assert len(results["validations"]) == 2
    assert read_rows(runs, "").num_rows == ANSWERS, "the newest run is the default"


async def test_each_kind_of_change_in_the_archive_is_found(past: Past) -> None:
    entries = [entry for entry in past.entries if len(entry.decision().features) and entry.decision().nearline]
    entry = entries[3]
    whole = entry.decision()
    bits = np.frombuffer(entry.features, np.uint32).copy()
    bits[5] ^= 1
    scores = whole.scores.copy()
    scores[0] = np.nextafter(scores[0], np.float32(np.inf))
    changed = {
        "features": replace(entry, features=bits.tobytes()),
        "scores": replace(entry, document=encoded(replace(whole, scores=scores))[0]),
        "nearline": replace(
            entry, document=encoded(replace(whole, nearline={**whole.nearline, "clicks_last_hour": 99}))[0]
        ),
        "items": replace(entry, document=encoded(replace(whole, items=(*whole.items[1:], whole.items[0])))[0]),
        "list": replace(entry, document=encoded(replace(whole, list_digest="0" * 64))[0]),
        "stages": replace(entry, document=encoded(replace(whole, decided_by="retrieval"))[0]),
    }
    rows = await rows_of(past, list(changed.values()))
    assert [row.kinds for row in rows] == list(changed)
    assert [row.mismatches for row in rows] == [1, 0, 1, 0, 0, 0]
    assert all(row.differences == 1 and row.replayed and row.example for row in rows)


async def test_what_cannot_be_made_again_is_said_and_does_not_stop_the_rest(past: Past) -> None:
    entries = past.entries[:3]
    gone = replace(entries[1], document=encoded(replace(entries[1].decision(), version="v99"))[0])  # type: ignore[arg-type]
    torn = replace(entries[2], document=b"{}")
    rows = await rows_of(past, [entries[0], gone, torn])
    assert [row.replayed for row in rows] == [True, False, False]
    assert rows[1].because.startswith("SnapshotNotFound")
    found = summary(rows)
    assert (found.sampled, found.replayed, found.mismatches) == (3, 1, 0)


def test_where_nothing_was_answered_both_commands_say_so(chosen: Past, capsys: pytest.CaptureFixture[str]) -> None:
    consistency.main(until="2001-01-01T00:00:00Z")
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said == {"application": NAME, "run": NO_RUN, "sampled": 0}
    judge.main(run=said["run"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["verdict"] == "nothing to judge"


def test_a_run_that_is_not_there_is_said(chosen: Past) -> None:
    with pytest.raises(InvalidRequest, match="no run '20990101'"):
        judge.main(run="20990101")


def test_a_sample_is_the_same_in_every_run(past: Past) -> None:
    entries = past.entries
    some = sampled(entries, 20)
    assert some == sampled(reversed(entries), 20)
    assert [entry.position for entry in some] == [one.position for one in entries if one in some]
    assert len(sampled(entries, 10**6)) == len(entries)


def answers(**changed: object) -> pd.DataFrame:
    good = AnswerRow("r1", "u1", 1, "v1", True, values=20, as_of_values=20, as_of_mismatches=7, as_of_differs=True)
    return pd.DataFrame([vars_of(good), {**vars_of(good), **changed}])


def vars_of(row: AnswerRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in AnswerRow.__annotations__}


@pytest.mark.parametrize(
    ("changed", "statuses"),
    [
        ({}, ["passed"] * 5),
        ({"mismatches": 1, "differences": 1}, ["failed", "failed", "passed", "passed", "passed"]),
        ({"differences": 1}, ["passed", "failed", "passed", "passed", "passed"]),
        ({"replayed": False, "because": "gone"}, ["passed", "passed", "warned", "passed", "passed"]),
        (
            {"replayed": False, "because": "lost", "is_lost": True},
            ["passed", "passed", "warned", "failed", "passed"],
        ),
    ],
)
def test_great_expectations_judges_every_row(changed: dict[str, object], statuses: list[str]) -> None:
    found = judge.judge_answers(answers(**changed), run="r")
    assert [line.status for line in found.lines] == statuses
    assert found.refused == ("failed" in statuses)


def test_a_run_of_which_nothing_could_be_made_again_is_not_green() -> None:
    rows = answers(replayed=False)
    rows["replayed"] = False
    assert judge.judge_answers(rows, run="r").refused


def test_the_command_fails_on_a_difference_and_files_the_report_all_the_same(chosen: Past) -> None:
    runs = runs_of(chosen.store, NAME)
    row = AnswerRow("r1", "<b>", 1, "v1", True, values=20, mismatches=1, differences=1, kinds="features", example="x")
    file_rows(runs, "20200101T000000.000000Z", [row])
    with pytest.raises(ValidationRefused, match="1 of 1 answers"):
        judge.main(run="20200101T000000.000000Z")
    page = runs.read("20200101T000000.000000Z/report.html").decode()
    assert "refused" in page and "&lt;b&gt;" in page
