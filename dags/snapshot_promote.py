"""snapshot_promote: the form that puts a snapshot live on purpose: one whose own build was fenced, or past failed checks."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from dags.forms import promote_form
from dags.job import JobOperator
from infra.contracts.break_glass import PASSABLE, REASON_AT_LEAST

DOC = """
### What this does

Puts a snapshot that the gate has **VALIDATED** live because somebody says so. A refresh does this by itself; this is for a snapshot
whose own flip was fenced (`FlipFenced`: a rollback or another build went first), or that was rolled back and is wanted after all.

| task | does | changes what is served? |
|---|---|---|
| `load` | copies the snapshot into Redis where it is not there already | no |
| `promote` | moves the alias `predictions_current`, whatever its generation is now | **yes, at once** |

It is safe **while a refresh is running**: this moves the generation on, so that build can no longer go live by itself. To go back:
`snapshot_rollback`. The **Snapshots** page has a button for both.

From a shell: `python -m infra.snapshots load --version v3`, then `python -m infra.snapshots promote --version v3 --force --reason "..."`.

**Past failed checks** (break-glass) is for a snapshot that the gate has refused and that must go live all the same. It is for the users
that `HEADGATE_BREAK_GLASS_USERS` names, such as `airflow:ada` (nobody at first), with a reason of at least {reason} characters. These
failed checks can be passed: {passable}. No other can: with those the snapshot could not be served. The snapshot's states, the journal
and the **Snapshots** page then say who passed which checks, and why. From a shell: `python -m infra.snapshots promote --version v3
--break-glass --reason "..."`.

### When it is red

| you see | mend |
|---|---|
| `SnapshotNotFound` | no such version, or its build never finished |
| `SnapshotNotValidated` | the gate has not passed it: `make validate VERSION=...` |
| `NotPermitted` | you may not promote past failed checks; the message says who may |
| `InvalidRequest` | the reason for a promotion past failed checks is too short, or there is no failed check to pass |
| `ValidationRefused` | it failed a check that nobody can pass: mend the build |
| `SnapshotCorrupt` | files of that version are damaged: choose another |
| `NotEnoughRoom` | it had to be loaded and does not fit: `make gc`, then again |
| `FlipFenced` | somebody else moved the alias at the same moment: look, then again |
| `DependencyUnavailable` | Redis or the store is away: `make status` |
""".format(reason=REASON_AT_LEAST, passable=", ".join(f"`{check}`" for check in PASSABLE))

_WHICH = {"--application": "{{ params.application }}", "--version": "{{ params.version }}"}
_BY = ["--actor", "airflow:{{ dag_run.triggering_user_name or 'unknown' }}"]
_REASON = {"--reason": "{{ params.reason }}"}
_PAST_CHECKS = {"--break-glass": "{{ params.break_glass }}"}

with DAG(
    dag_id="snapshot_promote",
    dag_display_name="Promote a snapshot",
    description="Put a snapshot of an application live on purpose.",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params=promote_form(),
    default_args={"owner": "headgate"},
    tags=["headgate", "snapshot", "on call"],
) as dag:
    load = JobOperator(
        task_id="load",
        module="infra.snapshots",
        args=["load", *_BY],
        options={**_WHICH, **_REASON},
        flags=_PAST_CHECKS,
        retries=2,
        retry_delay=timedelta(seconds=10),
        execution_timeout=timedelta(minutes=30),
        doc_md="Copies the snapshot into Redis; quick where it is there already. Failed checks, if asked for, are passed here.",
    )
    promote = JobOperator(
        task_id="promote",
        module="infra.snapshots",
        args=["promote", "--force", *_BY],
        options={**_WHICH, **_REASON},
        flags=_PAST_CHECKS,
        retries=0,  # a second try could undo a rollback that came after the first
        execution_timeout=timedelta(minutes=5),
        doc_md="Moves the alias; shows before and after.",
    )
    load >> promote
