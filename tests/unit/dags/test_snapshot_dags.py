"""What the DAGs hand to the jobs: every field of a form reaches the job, empty ones do not, bad ones are refused."""

from __future__ import annotations

import copy
import inspect
import re
import runpy
from collections.abc import Mapping
from importlib import import_module
from types import SimpleNamespace
from typing import cast

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from dags.canary import CanaryDecision, CanaryStart
from dags.forms import canary_form
from dags.job import JobOperator
from dags.snapshot_canary import dag as canary_dag
from dags.snapshot_canary_end import dag as canary_end_dag
from dags.snapshot_freshness import dag as freshness_dag
from dags.snapshot_guard import dag as guard_dag
from dags.snapshot_promote import dag as promote_dag
from dags.snapshot_refresh import refresh_dag
from dags.snapshot_rollback import dag as rollback_dag
from infra.catalog.applications.ranking import RANKING
from infra.config.settings import CHECKOUT, Settings, settings

XCOM = {"open": {"version": "v7"}, "import": {"dataset": "d-1"}, "validate": {"live": "v6"}}


def refresh() -> DAG:
    return refresh_dag(RANKING)


def rendered(
    dag: DAG,
    task_id: str,
    *,
    fields: Mapping[str, object] | None = None,
    user: str | None = "ada",
    approval: Mapping[str, str] | None = None,
) -> JobOperator:
    """The task as a run with those fields filled in would execute it."""
    task = copy.copy(dag.get_task(task_id))
    assert isinstance(task, JobOperator)
    context = {
        **(dag.user_defined_macros or {}),
        "params": {**dag.params.dump(), **(fields or {})},
        "ti": SimpleNamespace(xcom_pull=lambda task_ids: {**XCOM, "approve": approval}[task_ids]),
        "dag_run": SimpleNamespace(triggering_user_name=user),
        "dag": dag,
        "run_id": "manual__1",
    }
    task.render_template_fields(cast(Context, context), dag.get_template_env())
    return task


def test_an_empty_form_leaves_everything_to_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_RANKING_SOURCE", "/data/events")
    settings.cache_clear()
    try:
        dag = refresh()
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert rendered(dag, "import").command[1:] == [
        "-m", "spark_jobs.ingest", "--application", "ranking", "--source=/data/events",
    ]  # fmt: skip
    for task_id in ("embed", "candidates", "train"):
        assert rendered(dag, task_id).variables == {}


def test_every_field_of_the_refresh_form_reaches_its_job() -> None:
    source: dict[str, object] = {
        "source": "s3://bucket/a b",
        "format": "csv",
        "mapping": "user=u,item=i,time=t",
        "max_rejected_fraction": 0.0,
    }
    assert rendered(refresh(), "import", fields=source).command[5:] == [
        "--source=s3://bucket/a b",
        "--format=csv",
        "--map=user=u,item=i,time=t",
        "--max-rejected-fraction=0.0",
    ]
    fields: dict[str, object] = {
        "embedder": "als",
        "embedding_dim": 64,
        "candidates_per_user": 200,
        "include_seen": "leave out",
        "ranker_trees": 30,
    }
    seen = {
        name: value
        for task in ("embed", "candidates", "train")
        for name, value in rendered(refresh(), task, fields=fields).variables.items()
    }
    assert seen == {
        "HEADGATE_EMBEDDER": "als",
        "HEADGATE_EMBEDDING_DIM": "64",
        "HEADGATE_CANDIDATES_PER_USER": "200",
        "HEADGATE_INCLUDE_SEEN": "false",
        "HEADGATE_RANKER_TREES": "30",
    }
    assert rendered(refresh(), "candidates", fields={"include_seen": "include"}).variables == {
        "HEADGATE_INCLUDE_SEEN": "true"
    }


def test_every_variable_that_a_task_sets_is_a_setting_and_takes_what_the_form_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {f"HEADGATE_{name.upper()}" for name in Settings.model_fields}
    for task in refresh().tasks:
        assert not isinstance(task, JobOperator) or set(task.env) <= known
    monkeypatch.setenv("HEADGATE_INCLUDE_SEEN", "true")
    monkeypatch.setenv("HEADGATE_EMBEDDING_DIM", "2048")
    assert Settings().include_seen is True and Settings().embedding_dim == 2048


def test_the_forms_limits_are_the_settings_own() -> None:
    schemas = {name: refresh().params.get_param(name).schema for name in refresh().params}
    for name in ("embedding_dim", "candidates_per_user", "ranker_trees", "max_rejected_fraction", "canary_fraction"):
        limits = {type(rule).__name__: rule for rule in Settings.model_fields[name].metadata}
        assert schemas[name]["minimum"] == limits["Ge"].ge, name
        assert schemas[name]["maximum"] == limits["Le"].le, name


@pytest.mark.parametrize(
    "field",
    [
        {"source": ""},
        {"source": 7},
        {"format": "xlsx"},
        {"mapping": "user"},
        {"mapping": "colour=x"},
        {"mapping": "user=a,,item=b"},
        {"max_rejected_fraction": 1.5},
        {"max_rejected_fraction": "0.1"},
        {"embedder": "word2vec"},
        {"embedding_dim": 3},
        {"embedding_dim": 64.5},
        {"candidates_per_user": 10_001},
        {"candidates_per_user": 0},
        {"include_seen": "maybe"},
        {"ranker_trees": -1},
        {"canary_fraction": 0.6},
        {"canary_fraction": -0.1},
        {"approval": "no"},
        {"approval": False},
    ],
    ids=str,
)
def test_the_refresh_form_refuses_a_bad_value(field: Mapping[str, object]) -> None:
    with pytest.raises(ParamValidationError):
        _fill(refresh(), field).validate()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"reason": "bad"},
        {"reason": None},
        {"reason": "x" * 501},
        {"reason": "too many duplicates", "application": "fraud"},
        {"reason": "too many duplicates", "version": "12"},
        {"reason": "too many duplicates", "version": "v0"},
        {"reason": "too many duplicates", "version": "v1; rm -rf /"},
        {"reason": "too many duplicates", "version": ""},
    ],
    ids=str,
)
def test_the_rollback_form_refuses_a_bad_value(fields: Mapping[str, object]) -> None:
    with pytest.raises(ParamValidationError):
        _fill(rollback_dag, fields).validate()


@pytest.mark.parametrize("version", [None, "v3", "predictions_v3"])
def test_the_rollback_form_needs_only_a_reason_and_hands_it_on_as_one_word(version: str | None) -> None:
    fields: dict[str, object] = {"reason": "the list is stale; $(roll) 'back'", "version": version}
    _fill(rollback_dag, fields).validate()
    wanted = [f"--version={version}"] if version else []
    assert rendered(rollback_dag, "rollback", fields=fields).command[2:] == [
        "infra.snapshots",
        "rollback",
        "--actor",
        "airflow:ada",
        "--application=ranking",
        *wanted,
        "--reason=the list is stale; $(roll) 'back'",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "wanted after all"},
        {"reason": "wanted after all", "version": None},
        {"reason": "wanted after all", "version": "12"},
        {"version": "v3"},
        {"version": "v3", "reason": "why"},
        {"version": "v3", "reason": "wanted after all", "application": "fraud"},
        {"version": "v3", "reason": "wanted after all", "break_glass": "yes"},
        {"version": "v3", "reason": "wanted after all", "break_glass": None},
    ],
    ids=str,
)
def test_the_promotion_form_refuses_a_bad_value(fields: Mapping[str, object]) -> None:
    with pytest.raises(ParamValidationError):
        _fill(promote_dag, fields).validate()


def test_a_promotion_loads_what_it_flips_and_says_by_whom_and_why() -> None:
    fields: dict[str, object] = {"reason": "wanted after all; $(now)", "version": "v3"}
    _fill(promote_dag, fields).validate()
    rest = ["--application=ranking", "--version=v3", "--reason=wanted after all; $(now)"]
    assert _promotion(fields) == [
        ["infra.snapshots", "load", "--actor", "airflow:ada", *rest],
        ["infra.snapshots", "promote", "--force", "--actor", "airflow:ada", *rest],
    ]


def test_a_promotion_past_failed_checks_says_so_to_both_jobs() -> None:
    fields: dict[str, object] = {"reason": "the sale begins; agreed with bea", "version": "v3", "break_glass": True}
    _fill(promote_dag, fields).validate()
    assert [command.count("--break-glass") for command in _promotion(fields)] == [1, 1]
    assert [command.count("--break-glass") for command in _promotion({**fields, "break_glass": False})] == [0, 0]


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "v3"},
        {"reason": "new ranker"},
        {"version": None, "reason": "new ranker"},
        {"version": "v3", "reason": "why"},
        {"version": "v3", "reason": "new ranker", "fraction": 0},
        {"version": "v3", "reason": "new ranker", "fraction": 1.5},
        {"version": "v3", "reason": "new ranker", "fraction": None},
        {"version": "v3", "reason": "new ranker", "mode": "ab"},
        {"version": "v3", "reason": "new ranker", "hours": 0},
        {"version": "v3", "reason": "new ranker", "hours": 10_000},
    ],
    ids=str,
)
def test_the_form_of_a_canary_refuses_a_bad_value(fields: Mapping[str, object]) -> None:
    with pytest.raises(ParamValidationError):
        _fill(canary_dag, fields).validate()


def test_a_canary_by_hand_is_begun_on_purpose_for_the_share_and_in_the_mode_that_were_chosen() -> None:
    fields: dict[str, object] = {"version": "v3", "reason": "new ranker; $(now)", "fraction": 0.2, "mode": "shadow"}
    _fill(canary_dag, fields).validate()
    which = ["--application=ranking", "--version=v3"]
    assert rendered(canary_dag, "load", fields=fields).command[2:] == ["infra.snapshots", "load", *which]
    assert rendered(canary_dag, "start", fields=fields).command[2:] == [
        "infra.snapshots", "canary", "start", "--force", "--actor", "airflow:ada", *which,
        "--fraction=0.2", "--mode=shadow", "--reason=new ranker; $(now)",
    ]  # fmt: skip


@pytest.mark.parametrize(("setting", "fraction"), [("0", 0.05), ("0.1", 0.1)])
def test_a_canary_by_hand_takes_the_settings_share_or_one_in_twenty(
    setting: str, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_CANARY_FRACTION", setting)
    assert canary_form(chosen=Settings())["fraction"].value == fraction


@pytest.mark.parametrize("fields", [{"reason": "enough seen"}, {"version": "v3"}, {"version": "v3", "reason": "no"}])
def test_the_end_of_a_canary_wants_a_version_and_a_reason(fields: Mapping[str, object]) -> None:
    with pytest.raises(ParamValidationError):
        _fill(canary_end_dag, fields).validate()


def test_a_canary_is_ended_by_whoever_asked_for_it() -> None:
    fields: dict[str, object] = {"version": "v3", "reason": "enough seen"}
    _fill(canary_end_dag, fields).validate()
    assert rendered(canary_end_dag, "end", fields=fields).command[2:] == [
        "infra.snapshots", "canary", "end", "--actor", "airflow:ada",
        "--application=ranking", "--version=v3", "--reason=enough seen",
    ]  # fmt: skip


def test_the_guard_looks_at_each_application() -> None:
    commands = {task_id: rendered(guard_dag, task_id).command[2:] for task_id in guard_dag.task_ids}
    assert commands == {"ranking": ["infra.snapshots", "guard", "--application", "ranking"]}


def test_without_guard_hours_the_guard_has_no_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_GUARD_HOURS", "0")
    settings.cache_clear()
    try:
        read = runpy.run_path(str(CHECKOUT / "dags" / "snapshot_guard.py"))
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert read["dag"].schedule is None and guard_dag.schedule is not None


@pytest.mark.parametrize(
    ("setting", "field", "fraction"), [("0", None, 0.0), ("0.1", None, 0.1), ("0", 0.2, 0.2), ("0.1", 0, 0.0)]
)
def test_a_refresh_has_a_canary_where_the_form_or_else_the_setting_says_so(
    setting: str, field: float | None, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_CANARY_FRACTION", setting)
    settings.cache_clear()
    try:
        dag = refresh()
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    task = rendered(dag, "canary", fields={"canary_fraction": field})
    assert isinstance(task, CanaryStart) and float(task.fraction) == fraction
    assert task.beside == "v6" and isinstance(dag.get_task("decide"), CanaryDecision)


@pytest.mark.parametrize(
    ("user", "approval", "actor", "reason"),
    [
        ("ada", {"by": "bea", "note": "fine"}, "airflow:bea", ", started by ada, approved: fine"),
        (None, {"by": "bea", "note": ""}, "airflow:bea", ", started by schedule, approved"),
        ("ada", None, "airflow:ada", ""),
    ],
)
def test_who_approved_has_put_it_live_and_who_started_the_run_is_told_too(
    user: str | None, approval: Mapping[str, str] | None, actor: str, reason: str
) -> None:
    command = rendered(refresh(), "flip", user=user, approval=approval).command
    assert command[-4:] == ["--actor", actor, "--reason", f"snapshot_refresh_ranking manual__1{reason}"]


def test_a_scheduled_run_is_nobodys_hand() -> None:
    assert rendered(refresh(), "flip", user=None).command[2:] == [
        "infra.snapshots",
        "promote",
        "--application",
        "ranking",
        "--version",
        "v7",
        "--actor",
        "airflow:schedule",
        "--reason",
        "snapshot_refresh_ranking manual__1",
    ]


def test_a_template_in_a_field_is_text() -> None:
    assert rendered(refresh(), "import", fields={"source": "{{ dag }}"}).command[5] == "--source={{ dag }}"


def test_every_task_works_on_the_version_that_open_took() -> None:
    dag = refresh()
    for task_id in ("embed", "candidates", "train", "stage", "validate", "load", "canary", "flip"):
        command = rendered(dag, task_id).command
        assert command[command.index("--version") + 1] == "v7", task_id
    assert rendered(dag, "embed").command[-2:] == ["--dataset", "d-1"]


def test_the_page_explains_every_task_and_every_error_it_names_exists() -> None:
    errors = vars(import_module("infra.contracts.errors"))
    for dag in (refresh(), rollback_dag, promote_dag, freshness_dag, guard_dag, canary_dag, canary_end_dag):
        assert dag.doc_md is not None
        for name in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", dag.doc_md):
            assert name in errors, f"{dag.dag_id} tells of {name}"
        for task in dag.tasks:
            assert task.doc_md, task.task_id
    for dag in (refresh(), guard_dag, canary_dag, canary_end_dag):
        for task in dag.tasks:
            assert f"| `{task.task_id}` |" in inspect.cleandoc(dag.doc_md or ""), task.task_id


def _promotion(fields: Mapping[str, object]) -> list[list[str]]:
    return [rendered(promote_dag, task_id, fields=fields).command[2:] for task_id in ("load", "promote")]


def _fill(dag: DAG, fields: Mapping[str, object]) -> ParamsDict:
    params = copy.deepcopy(dag.params)
    params.update(dict(fields))
    return params
