"""What the hourly DAG hands to its jobs: the judge is told which run to judge."""

from __future__ import annotations

import copy
import re
from types import SimpleNamespace
from typing import cast

import pytest
from airflow.sdk import Context

from dags.job import JobOperator
from dags.nearline_consistency import SAMPLE, dag
from infra.contracts import errors


def command(task_id: str, *, run: str = "none") -> list[str]:
    task = copy.copy(dag.get_task(task_id))
    assert isinstance(task, JobOperator)
    replayed = {"replay_ranking": {"run": run}}
    context = {"ti": SimpleNamespace(xcom_pull=lambda task_ids: replayed[task_ids])}
    task.render_template_fields(cast(Context, context), dag.get_template_env())
    return task.command[2:]


def test_a_sample_is_made_again() -> None:
    wanted = ["spark_jobs.training.consistency", "--application", "ranking", "--sample", str(SAMPLE)]
    assert command("replay_ranking") == wanted


@pytest.mark.parametrize("run", ["20260501T120000.000000Z", "none"])
def test_the_judge_looks_at_that_run_and_no_other(run: str) -> None:
    assert command("judge_ranking", run=run) == ["validation.consistency", "--application", "ranking", f"--run={run}"]


def test_the_page_explains_every_task_and_every_error_it_names_exists() -> None:
    assert dag.doc_md is not None
    for name in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", dag.doc_md):
        assert hasattr(errors, name), name
    for task in dag.tasks:
        assert task.doc_md and f"| `{task.task_id}` |" in dag.doc_md, task.task_id
