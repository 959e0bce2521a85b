"""snapshot_canary_end: the form that ends a canary or a shadow before it is decided."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from dags.forms import canary_end_form
from dags.job import JobOperator

DOC = """
### What this does

| task | does | changes what is served? |
|---|---|---|
| `end` | ends the canary or the shadow of that version | to its users, at once: what is live |

The snapshot is VALIDATED as before and may be tried, or promoted, later. What was seen until now is filed with it: the **Snapshots** page has
a link. The run that waited for the decision (`snapshot_canary`, or a refresh, which then does not flip) ends at its next look, half a minute
later at most. Where that version is not tried any longer nothing happens, and this is green.

From a shell: `python -m infra.snapshots canary end --version v3 --reason "..."`; with `--refused` it is recorded as rolled back.

### When it is red

| you see | mend |
|---|---|
| `FlipFenced` | somebody else moved the alias at the same moment, which ended it as well: look |
| `DependencyUnavailable` | Redis or the store is away: `make status` |
"""

with DAG(
    dag_id="snapshot_canary_end",
    dag_display_name="End a canary",
    description="End the canary or the shadow of a snapshot before it is decided.",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params=canary_end_form(),
    default_args={"owner": "headgate"},
    tags=["headgate", "snapshot", "canary", "on call"],
) as dag:
    JobOperator(
        task_id="end",
        module="infra.snapshots",
        args=["canary", "end", "--actor", "airflow:{{ dag_run.triggering_user_name or 'unknown' }}"],
        options={
            "--application": "{{ params.application }}",
            "--version": "{{ params.version }}",
            "--reason": "{{ params.reason }}",
        },
        retries=2,
        retry_delay=timedelta(seconds=10),
        execution_timeout=timedelta(minutes=10),
        doc_md="Ends it; its users are shown what is live.",
    )
