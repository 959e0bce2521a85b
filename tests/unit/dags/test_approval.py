"""The question before a snapshot goes live: when it is put, what it shows, and what becomes of each answer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped, TaskAwaitingInput

from dags.approval import SnapshotApproval, question
from dags.snapshot_refresh import refresh_dag
from infra.catalog.applications.ranking import RANKING
from infra.config.settings import settings
from infra.contracts.snapshots import State
from infra.snapshots.versions import Version
from tests.fixtures.tiny_snapshot import build_tiny_snapshot

STAGED = {
    "counts": {"users": 12_000, "items": 300},
    "metrics": {"ranker": {"ndcg@10": 0.2}, "retrieval": {"ndcg@10": 0.1}},
}
JUDGED = {
    "verdict": "passed",
    "summary": "1 warned (overlap), 17 passed",
    "live": "v6",
    "findings": [
        {"check": "recall", "status": "passed", "seen": "0.995", "wanted": "0.99"},
        {"check": "overlap", "status": "warned", "seen": "0.2 of *u_1*", "wanted": "0.25 at least"},
    ],
}


@pytest.fixture(params=[False, True], ids=["setting off", "setting on"])
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    monkeypatch.setenv("HEADGATE_APPROVAL", str(request.param).lower())
    monkeypatch.setenv("HEADGATE_APPROVAL_HOURS", "2")
    settings.cache_clear()
    yield bool(request.param)
    monkeypatch.undo()
    settings.cache_clear()


@dataclass
class Run:
    """The task `approve` in a run of the refresh, with Airflow's side of it."""

    dag: DAG
    version: str = "v1"
    approval: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    @property
    def context(self) -> Context:
        xcom = {"open": {"version": self.version}, "stage": STAGED, "validate": JUDGED}
        ti = SimpleNamespace(
            id="ti-1", map_index=-1, xcom_pull=lambda task_ids: xcom[task_ids], xcom_push=lambda **pushed: None
        )
        params = {**self.dag.params.dump(), "approval": self.approval}
        task = self.dag.get_task("approve")
        return cast(
            Context, {"task": task, "ti": ti, "task_instance": ti, "params": params, "dag": self.dag, "run_id": "r1"}
        )

    @property
    def task(self) -> SnapshotApproval:
        task = copy.copy(self.dag.get_task("approve"))
        assert isinstance(task, SnapshotApproval)
        task.render_template_fields(self.context, self.dag.get_template_env())
        return task

    def answer(self, option: str, *, note: str = "", by: str = "bea") -> dict[str, str]:
        event = {
            "chosen_options": [option],
            "params_input": {"note": note},
            "responded_at": datetime.now(UTC),
            "responded_by_user": {"id": "7", "name": by},
            "timedout": False,
        }
        return self.task.execute_complete(self.context, event)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    made = Run(refresh_dag(RANKING))
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **asked: made.asked.append(asked))
    return made


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version:
    """Validated, where the job of the task will look for it."""
    monkeypatch.setenv("HEADGATE_STORE", str(tmp_path))
    made = build_tiny_snapshot(str(tmp_path))
    made.record(State.VALIDATED, actor="gate", reason="18 passed")
    return made


def test_the_dag_has_one_shape_and_asks_where_the_setting_or_the_form_says_so(setting: bool, run: Run) -> None:
    assert run.dag.get_task("approve").upstream_task_ids == {"validate"}
    assert run.dag.get_task("approve").downstream_task_ids == {"load"}
    assert run.dag.dagrun_timeout == timedelta(hours=24 + 2 + settings().canary_hours)
    for form in (None, "ask"):
        run.approval = form
        if setting or form == "ask":
            with pytest.raises(TaskAwaitingInput) as waits:
                run.task.execute(run.context)
            assert waits.value.timeout == timedelta(hours=2)
        else:
            run.task.execute(run.context)
    assert len(run.asked) == (2 if setting else 1)


def test_the_question_names_the_version_and_shows_what_an_approver_needs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.example/")
    run.approval, run.version = "ask", "v7"
    with pytest.raises(TaskAwaitingInput):
        run.task.execute(run.context)
    (asked,) = run.asked
    assert asked["subject"] == "May ranking v7 go live?"
    assert (asked["options"], asked["defaults"], list(asked["params"])) == (["Approve", "Reject"], None, ["note"])
    for told in (
        "The gate: **passed**: 1 warned (overlap), 17 passed.",
        "Now live: **v6**.",
        r"- **overlap** warns: seen 0.2 of \*u\_1\*; wanted 0.25 at least",
        "| users | 12,000 |",
        "| offline | ranker | retrieval |\n|---|---:|---:|\n| ndcg@10 | 0.2000 | 0.1000 |",
        "[The validation report](http://airflow.example/snapshots/applications/ranking/versions/v7/report)",
    ):
        assert told in asked["body"], told
    assert "recall" not in asked["body"]


def test_a_first_snapshot_without_a_ranker_is_told_as_well() -> None:
    told = question(staged={**STAGED, "metrics": {}}, judged={**JUDGED, "live": None}, report="r")
    assert "Nothing is live yet." in told and "No ranker was learnt." in told


def test_an_approval_hands_on_who_and_why(run: Run) -> None:
    assert run.answer("Approve", note=" fine ") == {"by": "bea", "note": "fine"}


def test_a_rejection_skips_the_load_and_is_recorded_with_the_snapshot(
    run: Run, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SnapshotApproval, "log", logging.getLogger("approve"))  # as a library Airflow sets up none
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        run.answer("Reject", note="too many duplicates; $(now)")
    assert list(skipped.value.tasks) == ["load"]
    record = version.history()[-1]
    assert (record.state, record.actor) == (State.VALIDATED, "airflow:bea")
    assert record.reason == "not let go live: too many duplicates; $(now) (snapshot_refresh_ranking r1)"


def test_no_answer_in_time_is_recorded_and_fails_for_good(run: Run, version: Version) -> None:
    event = {"error": "The timeout has passed", "error_type": "timeout"}
    with pytest.raises(
        AirflowFailException, match=r"ranking v1 stays VALIDATED and is not live: nobody answered within 24 h"
    ):
        run.task.execute_complete(run.context, event)
    record = version.history()[-1]
    assert (record.state, record.actor) == (State.VALIDATED, "airflow")
    assert "nobody answered within 24 h" in record.reason


def test_a_rejection_that_cannot_be_recorded_is_no_approval(run: Run, version: Version) -> None:
    version.record(State.REJECTED, actor="gate", reason="judged again")
    with pytest.raises(AirflowFailException, match="could not be recorded with the snapshot: airflow:bea: odd"):
        run.answer("Reject", note="odd")
    assert version.state() is State.REJECTED
