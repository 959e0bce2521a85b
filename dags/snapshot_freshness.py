"""snapshot_freshness: looks at every application four times an hour; red where the live snapshot is older than the SLO."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from dags.job import JobOperator
from infra.catalog.applications import APPLICATIONS
from infra.config.settings import settings

DOC = """
### What this does

Every 15 minutes, one task an application: **red** when the live snapshot was made more than {slo:g} h ago
(`HEADGATE_FRESHNESS_SLO_HOURS`), or when none is live at all. It changes nothing. The age is in the task's XCom and log.

### When it is red

Look at the last run of `snapshot_refresh_<application>`: it failed (its page says how to mend it), it is still running, or the DAG
is paused and does not run daily. To refresh now: trigger that DAG, or `make snapshot`.
"""

with DAG(
    dag_id="snapshot_freshness",
    dag_display_name="Watch the freshness of the snapshots",
    description="Red where a live snapshot is older than the freshness SLO.",
    doc_md=DOC.format(slo=settings().freshness_slo_hours),
    schedule=CronTriggerTimetable("*/15 * * * *", timezone="UTC", run_immediately=timedelta(0)),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": "headgate"},
    tags=["headgate", "snapshot", "slo"],
) as dag:
    for _name in APPLICATIONS:
        JobOperator(
            task_id=_name,
            module="infra.snapshots",
            args=["freshness", "--application", _name],
            retries=0,  # it comes again by itself
            execution_timeout=timedelta(minutes=5),
            doc_md=f"The age of what `{_name}` serves.",
        )
