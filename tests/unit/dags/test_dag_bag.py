"""Airflow's own reading of the folder: no import error, and exactly these DAGs with these schedules and this order."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
from typing import TypedDict

import pytest

from infra.config.settings import CHECKOUT

READ = """
    import json, sys
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    bag = DagBag(sys.argv[1])
    dags = {}
    for dag_id, dag in bag.dags.items():
        DagSerialization.to_dict(dag)
        timetable = dag.timetable
        dags[dag_id] = {
            "schedule": getattr(timetable, "expression", getattr(timetable, "_expression", None)),
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "paused": dag.is_paused_upon_creation,
            "documented": bool(dag.doc_md and dag.description and dag.dag_display_name),
            "order": [task.task_id for task in dag.topological_sort()],
            "upstream": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
            "retries": {task.task_id: task.retries for task in dag.tasks},
            "limited": all(task.execution_timeout for task in dag.tasks),
            "fields": sorted(dag.params),
            "reschedules": [task.task_id for task in dag.tasks if getattr(task, "reschedule", False)],
            "lateness": dag.deadline[0].name if dag.deadline else None,
        }
    print(json.dumps({"errors": bag.import_errors, "dags": dags}))
"""


class ReadDag(TypedDict):
    schedule: str | None
    catchup: bool
    max_active_runs: int
    paused: bool | None
    documented: bool
    order: list[str]
    upstream: dict[str, list[str]]
    retries: dict[str, int]
    limited: bool
    fields: list[str]
    reschedules: list[str]
    lateness: str | None


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReadDag]:
    """What a process of Airflow's own read from dags/: nothing of it stays in this one."""
    home = tmp_path_factory.mktemp("airflow")
    environment = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [sys.executable, "-c", textwrap.dedent(READ), str(CHECKOUT / "dags")]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    read: dict[str, ReadDag] = found["dags"]
    return read


def test_the_folder_holds_these_dags_and_no_other(dags: dict[str, ReadDag]) -> None:
    assert sorted(dags) == [
        "nearline_consistency",
        "snapshot_canary",
        "snapshot_canary_end",
        "snapshot_freshness",
        "snapshot_guard",
        "snapshot_promote",
        "snapshot_refresh_ranking",
        "snapshot_rollback",
    ]


def test_the_refresh_is_daily_without_catch_up_and_one_at_a_time(dags: dict[str, ReadDag]) -> None:
    dag = dags["snapshot_refresh_ranking"]
    assert (dag["schedule"], dag["catchup"], dag["max_active_runs"]) == ("0 0 * * *", False, 1)
    assert dag["lateness"] == "ranking: fresh in time"


def test_the_rollback_has_no_schedule_and_is_ready_when_it_is_needed(dags: dict[str, ReadDag]) -> None:
    dag = dags["snapshot_rollback"]
    assert (dag["schedule"], dag["paused"]) == (None, False)
    assert dag["fields"] == ["application", "reason", "version"]
    assert dag["retries"] == {"rollback": 0}


def test_a_promotion_loads_first_and_flips_once(dags: dict[str, ReadDag]) -> None:
    dag = dags["snapshot_promote"]
    assert (dag["schedule"], dag["paused"], dag["order"]) == (None, False, ["load", "promote"])
    assert dag["fields"] == ["application", "break_glass", "reason", "version"]
    assert dag["retries"] == {"load": 2, "promote": 0}, "a second flip could undo a rollback that came after the first"


def test_freshness_is_watched_from_the_start(dags: dict[str, ReadDag]) -> None:
    dag = dags["snapshot_freshness"]
    assert (dag["schedule"], dag["paused"], dag["order"]) == ("*/15 * * * *", False, ["ranking"])


def test_what_went_live_is_guarded_from_the_start(dags: dict[str, ReadDag]) -> None:
    dag = dags["snapshot_guard"]
    assert (dag["schedule"], dag["paused"], dag["order"]) == ("*/5 * * * *", False, ["ranking"])
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)


def test_answers_are_made_again_every_hour_and_then_judged(dags: dict[str, ReadDag]) -> None:
    dag = dags["nearline_consistency"]
    assert (dag["schedule"], dag["paused"], dag["order"]) == ("5 * * * *", False, ["replay_ranking", "judge_ranking"])
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
    assert dag["upstream"]["judge_ranking"] == ["replay_ranking"]


def test_a_canary_is_loaded_begun_and_then_waited_for(dags: dict[str, ReadDag]) -> None:
    dag = dags["snapshot_canary"]
    assert (dag["schedule"], dag["paused"], dag["order"]) == (None, False, ["load", "start", "decide"])
    assert dag["fields"] == ["application", "fraction", "hours", "mode", "reason", "version"]
    assert dag["reschedules"] == ["decide"]
    assert dag["max_active_runs"] > 1, "a second run is refused at once, not begun unasked when the first ends"


def test_a_canary_is_ended_by_a_dag_of_its_own(dags: dict[str, ReadDag]) -> None:
    dag = dags["snapshot_canary_end"]
    assert (dag["schedule"], dag["paused"], dag["order"]) == (None, False, ["end"])
    assert dag["fields"] == ["application", "reason", "version"]


def test_the_steps_of_a_refresh_follow_each_other(dags: dict[str, ReadDag]) -> None:
    upstream = dags["snapshot_refresh_ranking"]["upstream"]
    chain = ["embed", "candidates", "train", "stage", "validate", "approve", "load", "canary", "decide", "flip", "gc"]
    assert upstream["open"] == upstream["import"] == []
    assert upstream["embed"] == ["import", "open"]
    for before, after in itertools.pairwise(chain):
        assert upstream[after] == [before]


def test_every_dag_is_documented_and_every_task_ends_some_day(dags: dict[str, ReadDag]) -> None:
    for dag_id, dag in dags.items():
        assert dag["documented"] and dag["limited"], dag_id
