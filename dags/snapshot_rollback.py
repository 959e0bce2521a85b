"""snapshot_rollback: the form that puts an earlier snapshot live again, within seconds."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from dags.forms import rollback_form
from dags.job import JobOperator

DOC = """
### What this does

Moves an application's alias `predictions_current` to another snapshot. Left empty, **Version** means the one before the live one;
a second rollback goes one further back (it does not toggle). Naming a later version rolls forward.

It takes a few seconds: the copies of the last versions are still in Redis. If garbage collection has taken the wanted one, it is
loaded again first. The log of the task shows before and after with their times, and the service names the version in every answer.

It is safe **while a refresh is running**: the refresh noted the alias's generation when it began, this moves it on, so that build
can no longer go live by itself (`FlipFenced` in its `flip` task). It stays VALIDATED, to be promoted on purpose (`snapshot_promote`).

The **Snapshots** page has a button for this on each version. From a shell: `make rollback` or `make rollback VERSION=v3`.

### When it is red

| you see | mend |
|---|---|
| `NothingToRollBackTo` | there is no version before the live one: name one; `make status` lists them |
| `SnapshotNotFound` | no such version, or its build never finished |
| `SnapshotNotValidated` | the gate has not passed it: `make validate VERSION=...` |
| `SnapshotCorrupt` | files of that version are damaged: choose another |
| `NotEnoughRoom` | it had to be loaded and does not fit: `make gc`, then again |
| `FlipFenced` | somebody else moved the alias at the same moment: look, then again |
| `DependencyUnavailable` | Redis does not answer: `make status` |
"""

with DAG(
    dag_id="snapshot_rollback",
    dag_display_name="Roll back a snapshot",
    description="Put an earlier snapshot of an application live again, within seconds.",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params=rollback_form(),
    default_args={"owner": "headgate"},
    tags=["headgate", "snapshot", "on call"],
) as dag:
    JobOperator(
        task_id="rollback",
        module="infra.snapshots",
        args=["rollback", "--actor", "airflow:{{ dag_run.triggering_user_name or 'unknown' }}"],
        options={
            "--application": "{{ params.application }}",
            "--version": "{{ params.version or '' }}",
            "--reason": "{{ params.reason }}",
        },
        retries=0,  # a second try of a try that moved the alias would go one version further back
        execution_timeout=timedelta(minutes=30),
        doc_md="Moves the alias; shows before and after.",
    )
