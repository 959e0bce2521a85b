"""snapshot_guard: every five minutes, whether what users do has fallen since the newest flip; it rolls back, or is red."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from dags.job import JobOperator
from infra.catalog.applications import APPLICATIONS
from infra.config.settings import settings

_CHOSEN = settings()

DOC = """
### What this does

Every 5 minutes, one task an application: for {hours:g} h after a snapshot went live (`HEADGATE_GUARD_HOURS`; 0: this DAG has no
schedule), users' visits since then are compared with those as long before it. Where clicks or conversions have **surely** fallen by more
than {drop:.0%} (`HEADGATE_GUARD_DROP`), or slow or degraded lists surely risen, it does what `HEADGATE_GUARD_ACTION` says, now `{action}`:

| setting | what happens | this run |
|---|---|---|
| `rollback` | the version before is live again, within seconds; the journal names `guard` and what fell | green |
| `alert` | nothing is moved | **red** |

| task | does | changes what is served? |
|---|---|---|
{tasks}

Where nothing went live lately it reads the journal and ends. A rollback is not watched: it is the way back. What it compared is in the
task's XCom and log. From a shell: `python -m infra.snapshots guard`.

### When it is red

| you see | mend |
|---|---|
| *Surely fallen since ...* | look at the figures; `snapshot_rollback`, or the **Snapshots** page, goes back |
| `NothingToRollBackTo` | it fell, and there is no version before it: name one in `snapshot_rollback` |
| `NotEnoughRoom` | it fell, and the version before had to be loaded and does not fit: `make gc`, then `snapshot_rollback` |
| `FlipFenced` | somebody moved the alias at the same moment: the next run looks again |
| `DependencyUnavailable` | Redis or the store is away: `make status`; the next run looks again |
"""
_TASK = "| `{name}` | watches what `{name}` serves | only where it fell, and the setting is `rollback` |"

with DAG(
    dag_id="snapshot_guard",
    dag_display_name="Guard what went live",
    description="Rolls back, or is red, where clicks or conversions fell since a snapshot went live.",
    doc_md=DOC.format(
        hours=_CHOSEN.guard_hours,
        drop=_CHOSEN.guard_drop,
        action=_CHOSEN.guard_action,
        tasks="\n".join(_TASK.format(name=name) for name in APPLICATIONS),
    ),
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC", run_immediately=timedelta(0))
    if _CHOSEN.guard_hours
    else None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": "headgate"},
    tags=["headgate", "snapshot", "on call"],
) as dag:
    for _name in APPLICATIONS:
        JobOperator(
            task_id=_name,
            module="infra.snapshots",
            args=["guard", "--application", _name],
            retries=0,  # it comes again by itself
            execution_timeout=timedelta(minutes=10),
            doc_md=f"Compares visits to `{_name}` since the newest flip with those before it.",
        )
