"""nearline_consistency: every hour, whether what was served can be made again from the archive, to the bit."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from dags.job import JobOperator
from infra.catalog.applications import APPLICATIONS

SAMPLE = 500

DOC = """
### What this does

Every hour, for each application: {sample} answers of the last hour are made again from the store alone (snapshot, events up to the
offsets that each answer was made at, clock) and compared with what was served: lists, scores, feature values, to the bit. Great
Expectations judges the rows: **red where anything differs.**

| task | does | changes what is served? |
|---|---|---|
{tasks}

Where nothing was answered both say so and end. The report also tells, as a control, how often features joined by event time would
not have been what was served; that fails nothing. From a shell: `python -m spark_jobs.training.consistency`, then
`python -m validation.consistency`.

### When it is red

| you see | mend |
|---|---|
| `ValidationRefused` | look at one answer of the report: `python -m spark_jobs.training.replay REQUEST_ID` |
| *... are lost for another reason* | the event archive is behind or broken: `python -m infra.nearline status` |
| *0 of ... made again* | all of the sample's snapshots were collected: keep more (`HEADGATE_KEEP_DAYS`) |
| red after a feature was added or changed | the archive counts it from before the worker did: until its window is over |
"""
_TASKS = """\
| `replay_{name}` | makes answers of `{name}` again, files a row an answer below `<store>/{name}/consistency/` | no |
| `judge_{name}` | judges the rows, files a report beside them | no |"""

with DAG(
    dag_id="nearline_consistency",
    dag_display_name="Make answers again",
    description="Red where an answer of the last hour, made again from the archive, differs by a bit.",
    doc_md=DOC.format(sample=SAMPLE, tasks="\n".join(_TASKS.format(name=name) for name in APPLICATIONS)),
    schedule=CronTriggerTimetable("5 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={"owner": "headgate"},
    tags=["headgate", "nearline", "on call"],
) as dag:
    for _name in APPLICATIONS:
        _replay = JobOperator(
            task_id=f"replay_{_name}",
            module="spark_jobs.training.consistency",
            args=["--application", _name, "--sample", str(SAMPLE)],
            retries=1,
            execution_timeout=timedelta(minutes=45),
            doc_md=f"Makes answers of `{_name}` again and files what differs.",
        )
        _judge = JobOperator(
            task_id=f"judge_{_name}",
            module="validation.consistency",
            args=["--application", _name],
            options={"--run": "{{ ti.xcom_pull(task_ids='replay_" + _name + "')['run'] }}"},
            retries=0,  # a second look finds the same
            execution_timeout=timedelta(minutes=10),
            doc_md=f"Red where an answer of `{_name}` differs from what was served.",
        )
        _replay >> _judge
