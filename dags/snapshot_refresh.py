"""snapshot_refresh: for every application a DAG that builds a snapshot from events, has it judged, and puts it live."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, chain

from dags.approval import SnapshotApproval
from dags.canary import CanaryDecision, CanaryStart
from dags.forms import approval_form, refresh_form
from dags.job import JobOperator
from dags.late import refresh_deadline
from infra.catalog.applications import APPLICATIONS
from infra.catalog.applications.spec import ApplicationSpec
from infra.config.settings import Settings, settings

VERSION = "{{ ti.xcom_pull(task_ids='open')['version'] }}"
DATASET = "{{ ti.xcom_pull(task_ids='import')['dataset'] }}"
STARTED_BY = "dag_run.triggering_user_name or 'schedule'"
ACTOR = f"airflow:{{{{ {STARTED_BY} }}}}"
_SET = "{% set approval = ti.xcom_pull(task_ids='approve') %}"
FLIP_ACTOR = f"{_SET}airflow:{{{{ approval.by if approval else {STARTED_BY} }}}}"
FLIP_REASON = (
    f"{_SET}{{{{ dag.dag_id }}}} {{{{ run_id }}}}"
    f"{{% if approval %}}, started by {{{{ {STARTED_BY} }}}}, approved{{{{ ': ' ~ approval.note if approval.note else '' }}}}{{% endif %}}"
)
"""Whoever approved has put it live; where nobody was asked it was whoever started the run. So for its canary."""
FRACTION = "{{ default_fraction if params.canary_fraction is none else params.canary_fraction }}"
GENERATION = "{{ (ti.xcom_pull(task_ids='canary') or {}).get('generation', '') }}"
LIVE = "{{ ti.xcom_pull(task_ids='validate')['live'] or '' }}"

DOC = """
### What this does

Builds one **snapshot** for `{name}` from a set of events and puts it live. A snapshot is a numbered, sealed folder of Parquet
files: every user's best {candidates:,} items, the item table, and the model that ranks them.

| task | does | changes what is served? |
|---|---|---|
| `open` | takes the next version number and notes where the alias stands | no |
| `import` | reads the source into a dataset; bad rows are counted and set aside | no |
| `embed` | Spark: vectors for users and items | no |
| `candidates` | Spark and FAISS: the best items of every user | no |
| `train` | XGBoost: the ranker, judged on the newest part of the data | no |
| `stage` | seals the folder with a manifest of digests: the snapshot now exists | no |
| `validate` | Great Expectations: the gate. **Only this calls it VALIDATED** (but for a person, past failed checks: `snapshot_promote`) | no |
| `approve` | asks a person, where approval is on (`HEADGATE_APPROVAL`, or the form); else it ends at once | no |
| `load` | copies the candidates into Redis, beside those of the live version | no |
| `canary` | shows it to a share of the users first, where there is one (`HEADGATE_CANARY_FRACTION`, or the form); else it ends at once | to that share |
| `decide` | waits for what they do: surely no worse, it goes live for all; surely worse, it is rolled back | **yes**, where it passed |
| `flip` | moves the alias `predictions_current` by compare-and-set; after a canary that passed it finds that done | **yes, at once** |
| `gc` | deletes old copies from Redis; the run does not hang on it | no |

Runs daily at 00:00 UTC (no catch-up, one run at a time). A manual run shows a form: every field may stay empty.
Each task is also a command; the first line of its log is the one to type into a shell.

### When something is red

| task | you see | mend |
|---|---|---|
| `import` | *No source* | fill in **Source of the events**, or set `HEADGATE_{upper}_SOURCE` for the daily run |
| `import` | `DataRefused` | read the rejects file that the message names; mend the data, the mapping, or raise **Bad rows allowed** |
| any Spark task | `MissingTool` | `make up` finds or unpacks a Java 17 |
| any Spark task | out of memory | raise `HEADGATE_SPARK_DRIVER_MEMORY`, or use a cluster: `HEADGATE_SPARK_MASTER=spark://...` |
| `validate` | `ValidationRefused` | the message names the check, what was seen and wanted; the report lies with the snapshot. What is live stays live. |
| `approve` | *nobody answered* | the snapshot stays VALIDATED: clear the task to ask again, or use `snapshot_promote` |
| `load` | `NotEnoughRoom` | `make gc`, or a larger `HEADGATE_REDIS_MAXMEMORY_MB`; then clear this task |
| `canary`, `flip` | `CanaryRuns` | another snapshot is tried, and that goes first; this one stays VALIDATED, for `snapshot_canary` or `snapshot_promote` |
| `decide` | *rolled back* | users were surely worse off, or services could not serve it: the message says by how much, the **Snapshots** page has the report |
| `canary`, `flip` | `FlipFenced` | somebody rolled back (or flipped) while this ran, and that wins. The message has the command that flips on purpose. |
| any | `DependencyUnavailable` | Redis or the store is away: `make status`, then clear the task |

With approval on, the run waits at `approve` for up to {approval:g} h: **Required Actions** (under *Browse*) shows the verdict, the counts
and a link to the report, to whoever may edit runs of this DAG. A rejection ends the run without a flip, and green; the snapshot stays
VALIDATED, and its states say who rejected it and why. The journal names who approved. The next run waits until this one has ended.

With a canary (of {fraction:.3g} of the users by the setting now), `decide` looks every half a minute for up to {canary:g} h and holds no
worker meanwhile. Rolled back, the run is **red**, as where the gate refuses. Not decided in time, or ended by somebody, it ends without a
flip and green: a person may promote it. A first snapshot has nothing to be compared with, and goes live without. The freshness SLO must
leave the time; the next run waits until this one has ended. Marking the run as failed leaves the canary running: end it as well.

Clearing a task repeats it and what follows. It is safe: each try writes a folder of its own, and a retry that finds its work done
changes nothing. `snapshot_rollback` may run **while** this does: the alias's generation decides, not the clock, so a build that
began before the rollback can never undo it.

The live snapshot must never be older than {slo:g} h: `snapshot_freshness` watches that, and a run that is not done {spare:g} h after
it was queued is reported as late.
"""


def refresh_dag(spec: ApplicationSpec) -> DAG:
    """The DAG `snapshot_refresh_<application>`."""
    chosen = settings()
    source = str(getattr(chosen, f"{spec.name}_source", ""))
    slo = timedelta(hours=chosen.freshness_slo_hours)
    deadline = refresh_deadline(application=spec.name, freshness_slo=slo)
    doc = DOC.format(
        name=spec.name,
        upper=spec.name.upper(),
        candidates=chosen.candidates_per_user,
        approval=chosen.approval_hours,
        fraction=chosen.canary_fraction,
        canary=chosen.canary_hours,
        slo=slo / timedelta(hours=1),
        spare=deadline.interval / timedelta(hours=1) if isinstance(deadline.interval, timedelta) else 0,
    )
    with DAG(
        dag_id=f"snapshot_refresh_{spec.name}",
        dag_display_name=f"Refresh the snapshot: {spec.title}",
        description=f"Build a snapshot of {spec.name} from events, validate it, put it live.",
        doc_md=doc,
        # The first run is at the next tick: unpausing the DAG must not start a build by itself.
        schedule=CronTriggerTimetable(spec.schedule, timezone="UTC", run_immediately=timedelta(0)),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=24 + chosen.approval_hours + chosen.canary_hours),
        deadline=deadline,
        params=refresh_form(chosen=chosen, source=source),
        user_defined_macros={"default_source": source, "default_fraction": chosen.canary_fraction},
        default_args={"owner": "headgate", "retry_delay": timedelta(seconds=10)},
        tags=["headgate", spec.name, "snapshot"],
    ) as dag:
        wire(spec, chosen)
    return dag


def wire(spec: ApplicationSpec, chosen: Settings) -> None:
    """The tasks and their order, in the current DAG."""
    which = ["--application", spec.name]
    built = [*which, "--version", VERSION]
    setting = f"the setting HEADGATE_{spec.name.upper()}_SOURCE is empty"
    open_ = JobOperator(
        task_id="open",
        module="infra.snapshots",
        args=["open", *which, "--actor", ACTOR],
        retries=2,
        execution_timeout=timedelta(minutes=5),
        doc_md="Takes the next version number, and notes the alias's generation: a flip that finds another is fenced.",
    )
    import_ = JobOperator(
        task_id="import",
        module="spark_jobs.ingest",
        args=which,
        options={
            "--source": "{{ params.source or default_source }}",
            "--format": "{{ params.format or '' }}",
            "--map": "{{ params.mapping or '' }}",
            "--max-rejected-fraction": "{{ '' if params.max_rejected_fraction is none else params.max_rejected_fraction }}",
        },
        needed={
            "--source": f"No source of events: the form's field is empty and {setting}. "
            "Trigger the DAG with a source, or set it before `make up`."
        },
        retries=1,
        execution_timeout=timedelta(hours=4),
        doc_md="Reads the source into a sealed dataset. Above the allowed share of bad rows it fails and changes nothing.",
    )
    embed = JobOperator(
        task_id="embed",
        module="spark_jobs.embeddings",
        args=[*built, "--dataset", DATASET],
        env={
            "HEADGATE_EMBEDDER": "{{ params.embedder or '' }}",
            "HEADGATE_EMBEDDING_DIM": "{{ params.embedding_dim or '' }}",
        },
        retries=1,
        execution_timeout=timedelta(hours=6),
        doc_md="Vectors for every user and item, and what both have been up to.",
    )
    candidates = JobOperator(
        task_id="candidates",
        module="spark_jobs.candidates",
        args=built,
        env={
            "HEADGATE_CANDIDATES_PER_USER": "{{ params.candidates_per_user or '' }}",
            "HEADGATE_INCLUDE_SEEN": "{{ {'include': 'true', 'leave out': 'false'}.get(params.include_seen, '') }}",
        },
        retries=1,
        execution_timeout=timedelta(hours=6),
        doc_md="The best items of every user by exact search, packed; the popular and the trending ones.",
    )
    train = JobOperator(
        task_id="train",
        module="spark_jobs.training",
        args=built,
        env={"HEADGATE_RANKER_TREES": "{{ '' if params.ranker_trees is none else params.ranker_trees }}"},
        retries=1,
        execution_timeout=timedelta(hours=6),
        doc_md="The ranker, from a split in time: it never sees what came after the moment it predicts.",
    )
    stage = JobOperator(
        task_id="stage",
        module="spark_jobs.publish",
        args=built,
        retries=1,
        execution_timeout=timedelta(hours=1),
        doc_md="Seals the manifest. From here on the snapshot exists and never changes.",
    )
    validate = JobOperator(
        task_id="validate",
        module="validation.gate",
        args=built,
        retries=1,  # for a killed task; a refusal is final at once, for the same bytes get the same verdict
        execution_timeout=timedelta(hours=2),
        doc_md="The gate. A refusal names the check, what was seen and what was wanted, and leaves the alias alone.",
    )
    approve = SnapshotApproval(
        task_id="approve",
        application=spec.name,
        version=VERSION,
        always=chosen.approval,
        wanted="{{ params.approval or '' }}",
        hours=chosen.approval_hours,
        params=approval_form(),
        retries=2,  # for a killed task, or an answer that Airflow lost (it asks again): one that was taken is final, and so is none
        execution_timeout=timedelta(minutes=5),  # of asking and of taking the answer, not of the wait between
        doc_md="Asks a person before anything is loaded. In place whether approval is on or off: off, it ends at once.",
    )
    load = JobOperator(
        task_id="load",
        module="infra.snapshots",
        args=["load", *built],
        retries=2,
        execution_timeout=timedelta(hours=2),
        doc_md="Copies the candidates into Redis and reads each one back. Refused beforehand where they would not fit.",
    )
    canary = CanaryStart(
        task_id="canary",
        args=["canary", "start", "--unless-live", *built, "--actor", FLIP_ACTOR, "--reason", FLIP_REASON],
        fraction=FRACTION,
        beside=LIVE,
        retries=2,
        execution_timeout=timedelta(minutes=5),
        doc_md="Shows it to a share of the users, fenced as the flip is. In place whether there is a canary or not: without, it ends "
        "at once.",
    )
    decide = CanaryDecision(
        task_id="decide",
        application=spec.name,
        version=VERSION,
        generation=GENERATION,
        lasts=timedelta(hours=chosen.canary_hours),
        holds_flip=True,
        execution_timeout=timedelta(minutes=10),
        doc_md="Looks until the canary is over. Only one that passed, or none at all, is followed by `flip`.",
    )
    flip = JobOperator(
        task_id="flip",
        module="infra.snapshots",
        args=["promote", *built, "--actor", FLIP_ACTOR, "--reason", FLIP_REASON],
        retries=2,
        execution_timeout=timedelta(minutes=5),
        doc_md="Compare-and-set of the alias. If it moved since `open`, nothing happens and the task says who was first; "
        "what its canary has put live is live already.",
    )
    gc = JobOperator(
        task_id="gc",
        module="infra.snapshots",
        args=["gc", *which],
        on_failure="skip",
        execution_timeout=timedelta(minutes=30),
        doc_md="Deletes serving copies that no rollback will want soon. When it fails the snapshot is live all the same.",
    )
    chain([open_, import_], embed, candidates, train, stage, validate, approve, load, canary, decide, flip, gc)


for _spec in APPLICATIONS.values():
    globals()[f"snapshot_refresh_{_spec.name}"] = refresh_dag(_spec)
