"""snapshot_canary: the form that tries a snapshot on a share of the users, seen or unseen, until it is decided."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, chain

from dags.canary import CanaryDecision
from dags.forms import CANARY_HOURS_AT_MOST, canary_form
from dags.job import JobOperator
from infra.config.settings import settings

DOC = """
### What this does

Tries a snapshot that the gate has passed beside the one that is live, on a share of the users: the same ones for as long as it runs. A
**canary** is shown to them, and what they do decides. A **shadow** scores their requests unseen: it compares lists and latency, and never
goes live by itself.

| task | does | changes what is served? |
|---|---|---|
| `load` | copies the snapshot into Redis where it is not there already | no |
| `start` | begins it, whatever the alias's generation is now | to its share of the users (a shadow: no) |
| `decide` | looks every half a minute, and does what follows; between two looks it holds no worker | **yes**, at the end |

`decide` ends with one of these, all of them green; its log and XCom say why:

| verdict | what happens |
|---|---|
| `promoted` | surely no worse in clicks, conversions, slow and degraded lists: it goes live for all |
| `rolled_back` | surely worse in one of them, or services could not serve it: it ends, ROLLED_BACK |
| `expired` | neither within **Hours at most** (a shadow always), or the comparison was void: it ends, VALIDATED as before |
| `ended` | somebody ended it: `snapshot_canary_end`, or the **Snapshots** page |
| `none` | a promotion or a rollback went first, and ended it |

One canary runs at a time, for exactly one generation: **any flip ends it**, a rollback above all. While it runs, a refresh's flip is
refused. The service takes up to a few seconds to load it; its users get the live version until then, and whenever it cannot answer. Marking
this run as failed leaves the canary running, and nobody decides it: end it, or clear `decide`.

Where the log of what was shown no longer reaches back to its start it cannot be judged: it says so, and waits until it expires (a larger
`HEADGATE_EXPOSURES_KEPT` for the next one).

Clearing `decide` is safe: it looks on, or tells again how that canary ended. Clearing `start` starts nothing twice; once it is over, it begins
anew.

From a shell: `python -m infra.snapshots canary start --version v3 --fraction 0.05 --force --reason "..."`, then `canary status`,
`canary decide` (again and again), `canary end --reason "..."`.

### When it is red

| task | you see | mend |
|---|---|---|
| `load` | `SnapshotNotFound` | no such version, or its build never finished |
| `load` | `SnapshotNotValidated` | the gate has not passed it: `make validate VERSION=...` |
| `load` | `NotEnoughRoom` | `make gc`, or a larger `HEADGATE_REDIS_MAXMEMORY_MB`; then clear this task |
| `start` | `CanaryRuns` | another canary runs: wait for its end, or `snapshot_canary_end`; then clear this task |
| `start` | `MoveNotAllowed` | it is live already, or was not built to an end |
| `start` | `InvalidRequest` | a canary takes up to half of the users, a shadow all of them |
| `start`, `decide` | `SnapshotCorrupt` | files of that version are damaged: choose another |
| any | `DependencyUnavailable` | Redis or the store is away: `make status`, then clear the task |
"""

_WHICH = {"--application": "{{ params.application }}", "--version": "{{ params.version }}"}
_BY = ["--actor", "airflow:{{ dag_run.triggering_user_name or 'unknown' }}"]
_LASTS = timedelta(hours=CANARY_HOURS_AT_MOST)

with DAG(
    dag_id="snapshot_canary",
    dag_display_name="Try a snapshot on some users",
    description="A canary or a shadow of a snapshot beside the live one, until it is decided.",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=16,  # one would let a second wait for hours and then begin unasked; `start` refuses it at once
    dagrun_timeout=_LASTS + timedelta(days=1),
    is_paused_upon_creation=False,
    params=canary_form(chosen=settings()),
    default_args={"owner": "headgate", "retry_delay": timedelta(seconds=10)},
    tags=["headgate", "snapshot", "canary"],
) as dag:
    load = JobOperator(
        task_id="load",
        module="infra.snapshots",
        args=["load"],
        options=_WHICH,
        retries=2,
        execution_timeout=timedelta(minutes=30),
        doc_md="Copies the snapshot into Redis; quick where it is there already.",
    )
    start = JobOperator(
        task_id="start",
        module="infra.snapshots",
        args=["canary", "start", "--force", *_BY],
        options={
            **_WHICH,
            "--fraction": "{{ params.fraction }}",
            "--mode": "{{ params.mode }}",
            "--reason": "{{ params.reason }}",
        },
        retries=2,
        execution_timeout=timedelta(minutes=5),
        doc_md="Begins it, for one generation of the alias. Beginning what runs as asked changes nothing.",
    )
    decide = CanaryDecision(
        task_id="decide",
        application="{{ params.application }}",
        version="{{ params.version }}",
        generation="{{ ti.xcom_pull(task_ids='start')['generation'] }}",
        hours="{{ params.hours or '' }}",
        lasts=_LASTS,
        execution_timeout=timedelta(minutes=10),
        doc_md="Looks until it is over: promoted, rolled back, expired, or ended by somebody.",
    )
    chain(load, start, decide)
