"""The two tasks of a canary: what they ask the command line, when they end at once, and what each verdict does to the run."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import DAG, Context, PokeReturnValue
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from dags import canary
from dags.canary import CanaryDecision, CanaryStart
from dags.job import JobOperator
from dags.snapshot_canary import dag as canary_dag
from dags.snapshot_canary_end import dag as canary_end_dag
from dags.snapshot_refresh import refresh_dag
from infra.catalog.applications.ranking import RANKING
from infra.contracts.snapshots import State
from infra.experiments.judgement import Verdict
from infra.snapshots.versions import Version
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, tiny_world
from tests.unit.dags.plugins.snapshots.conftest import Shop, shop

__all__ = ["shop"]

STARTED = {"application": "ranking", "live": "v6", "generation": 12, "canary": {"version": "v7"}}
ENDS = ("promoted", "rolled_back", "expired", "ended", "none")


@pytest.fixture(autouse=True)
def logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library Airflow sets up none."""
    monkeypatch.setattr(JobOperator, "log", logging.getLogger("canary"))


@pytest.fixture
def said(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the command line prints; in place of it stands a module that prints that, with the words it was given."""
    (jobs / "command_line.py").write_text(
        "import json, pathlib, sys\n"
        "found = json.loads((pathlib.Path(__file__).parent / 'said.json').read_text())\n"
        "if 'error' in found: sys.exit(found['error'])\n"
        "print(json.dumps({**found, 'words': sys.argv[1:]}))\n"
    )
    (jobs / "said.json").write_text(json.dumps(STARTED))
    return jobs / "said.json"


def say(said: Path, **fields: object) -> None:
    said.write_text(json.dumps(fields))


def task_of(
    dag: DAG, task_id: str, *, xcom: Mapping[str, object] | None = None, module: str = "command_line", **params: object
) -> Any:
    """The task as a run with those fields filled in would execute it, by default against the module of `said`."""
    found = {"open": {"version": "v7"}, "validate": {"live": "v6"}, **(xcom or {})}
    task: Any = copy.copy(dag.get_task(task_id))
    context = {
        **(dag.user_defined_macros or {}),
        "params": {**dag.params.dump(), **params},
        "ti": SimpleNamespace(xcom_pull=lambda task_ids: found.get(task_ids)),
        "dag_run": SimpleNamespace(triggering_user_name="ada"),
        "dag": dag,
        "run_id": "r1",
    }
    task.render_template_fields(cast(Context, context), dag.get_template_env())
    task.module = module
    return task


def start(**params: Any) -> dict[str, Any] | None:
    task = task_of(refresh_dag(RANKING), "canary", **params)
    assert isinstance(task, CanaryStart)
    return cast("dict[str, Any] | None", task.execute(cast(Context, {})))


def look(dag: DAG, **params: Any) -> PokeReturnValue:
    task = task_of(dag, "decide", **params)
    assert isinstance(task, CanaryDecision)
    return task.poke(cast(Context, {}))


def look_by_hand() -> PokeReturnValue:
    return look(canary_dag, xcom={"start": STARTED}, version="v7", reason="new ranker")


def look_in_refresh() -> PokeReturnValue:
    return look(refresh_dag(RANKING), xcom={"canary": STARTED})


def test_the_words_for_verdicts_are_the_judgements_own() -> None:
    words = {canary.WAITS, canary.ROLLED_BACK, canary.EXPIRED, canary.ENDED, "promoted"}
    assert words == {verdict.value for verdict in Verdict}


def test_a_refresh_without_a_fraction_starts_nothing_and_has_nothing_to_decide(said: Path) -> None:
    say(said, error="error: it was asked")
    assert start() is None
    found = look(refresh_dag(RANKING), xcom={"canary": None})
    assert (found.is_done, found.xcom_value) == (True, None)


def test_a_first_snapshot_has_nothing_to_be_tried_beside(said: Path) -> None:
    say(said, error="error: it was asked")
    assert start(xcom={"validate": {"live": None}}, canary_fraction=0.1) is None


def test_a_refreshs_canary_is_fenced_and_names_whoever_approved(said: Path) -> None:
    found = start(xcom={"approve": {"by": "bea", "note": "fine"}}, canary_fraction=0.1)
    assert found is not None and found["generation"] == 12
    assert found["words"] == [
        "canary", "start", "--unless-live", "--application", "ranking", "--version", "v7", "--actor", "airflow:bea",
        "--reason", "snapshot_refresh_ranking r1, started by ada, approved: fine", "--fraction=0.1",
    ]  # fmt: skip


def test_a_look_asks_for_the_version_and_the_generation_that_were_started(said: Path) -> None:
    say(said, verdict="promoted", because="b")
    wanted = ["canary", "decide", "--json", "--application=ranking", "--version=v7", "--generation=12"]
    for dag, xcom, more in (
        (refresh_dag(RANKING), {"canary": STARTED}, {}),
        (canary_dag, {"start": STARTED}, {"version": "v7", "reason": "new ranker"}),
    ):
        assert cast("dict[str, object]", look(dag, xcom=xcom, **more).xcom_value)["words"] == wanted
    hours = look(canary_dag, xcom={"start": STARTED}, version="v7", hours=0.5).xcom_value
    assert cast("dict[str, object]", hours)["words"] == [*wanted, "--hours=0.5"]


def test_while_it_waits_the_task_comes_again_and_holds_no_worker(said: Path, caplog: pytest.LogCaptureFixture) -> None:
    say(said, verdict="waits", because="3 users of the canary.")
    with caplog.at_level(logging.INFO, logger="canary"):
        assert not look_by_hand().is_done and not look_in_refresh().is_done
    assert "ranking v7: waits. 3 users of the canary." in caplog.text
    for task in (canary_dag.get_task("decide"), refresh_dag(RANKING).get_task("decide")):
        assert isinstance(task, CanaryDecision)
        assert task.reschedule and 30 <= task.poke_interval <= 60


@pytest.mark.parametrize("verdict", ENDS)
def test_by_hand_every_end_is_green_and_told(said: Path, verdict: str, caplog: pytest.LogCaptureFixture) -> None:
    say(said, verdict=verdict, **({} if verdict == "none" else {"because": "for this reason"}))
    with caplog.at_level(logging.INFO, logger="canary"):
        found = look_by_hand()
    assert found.is_done and cast("dict[str, object]", found.xcom_value)["verdict"] == verdict
    told = "somebody ended it, or moved the alias" if verdict == "none" else "for this reason"
    assert told in caplog.text


@pytest.mark.parametrize("verdict", ["promoted", "none"])
def test_in_a_refresh_the_flip_follows_a_canary_that_passed_and_its_fence_judges_one_that_somebody_overtook(
    said: Path, verdict: str
) -> None:
    say(said, verdict=verdict)
    assert look_in_refresh().is_done


def test_in_a_refresh_a_canary_that_was_rolled_back_is_red_for_good(said: Path) -> None:
    say(said, verdict="rolled_back", because="Surely worse: click-through.")
    with pytest.raises(AirflowFailException, match=r"ranking v7: rolled back\. Surely worse: click-through\. What was"):
        look_in_refresh()


@pytest.mark.parametrize("verdict", ["expired", "ended"])
def test_in_a_refresh_one_that_was_not_decided_skips_the_flip(said: Path, verdict: str) -> None:
    say(said, verdict=verdict, because="Neither surely worse nor good.")
    with pytest.raises(AirflowSkipException, match="It is not live, and stays VALIDATED: snapshot_promote"):
        look_in_refresh()


def test_a_look_that_failed_is_tried_again_unless_somebody_must_act(said: Path) -> None:
    say(said, error="error: DependencyUnavailable: Redis is away.")
    with pytest.raises(AirflowException, match="Redis is away") as failed:
        look_by_hand()
    assert not isinstance(failed.value, AirflowFailException)
    say(said, error="error: OperatorError: v7 cannot be judged.")
    with pytest.raises(AirflowFailException, match="v7 cannot be judged"):
        look_by_hand()


def test_the_sensor_outlasts_every_canary_and_the_run_outlasts_the_sensor() -> None:
    hours = canary_dag.params.get_param("hours").schema["maximum"]
    for dag, lasts in ((canary_dag, timedelta(hours=hours)), (refresh_dag(RANKING), timedelta(hours=24))):
        task = dag.get_task("decide")
        assert isinstance(task, CanaryDecision) and dag.dagrun_timeout is not None
        assert lasts < timedelta(seconds=task.timeout) <= dag.dagrun_timeout, dag.dag_id


@dataclass(frozen=True)
class Beside:
    """A refresh whose snapshot has just been loaded beside a live one, with the real command line, store and Redis."""

    shop: Shop
    version: Version

    def run(self, dag: DAG, task_id: str, *, started: object = None, **params: object) -> Any:
        xcom = {"open": {"version": self.version.version}, "validate": {"live": "v2"}, "canary": started}
        task = task_of(dag, task_id, xcom=xcom, module="infra.snapshots", **params)
        return task.poke(cast(Context, {})) if task_id == "decide" else task.execute(cast(Context, {}))

    @property
    def generation(self) -> int:
        return self.shop.promotion.flips.look().generation


@pytest.fixture
def beside(shop: Shop) -> Beside:
    shop.live()
    shop.live()
    version = build_tiny_snapshot(shop.root, world=tiny_world(users=20, items=60), k=10, generation=2)
    version.record(State.VALIDATED, actor="gate", reason="passed")
    shop.promotion.load(version, limit_fraction=1.0)
    return Beside(shop, version)


def test_a_refresh_that_somebody_stops_while_it_is_tried_ends_without_a_flip(beside: Beside) -> None:
    dag = refresh_dag(RANKING)
    started = beside.run(dag, "canary", canary_fraction=0.5)
    assert beside.run(dag, "canary", canary_fraction=0.5) == started, "a second try changes nothing"
    assert (started["generation"], beside.version.state()) == (3, State.CANARY)
    assert not beside.run(dag, "decide", started=started).is_done
    end = {"version": beside.version.version, "reason": "not today"}
    assert beside.run(canary_end_dag, "end", **end)["moved"] is True
    assert beside.run(canary_end_dag, "end", **end)["moved"] is False
    with pytest.raises(AirflowSkipException, match="ended. Ended by airflow:ada: not today"):
        beside.run(dag, "decide", started=started)
    assert (beside.generation, beside.version.state()) == (4, State.VALIDATED)


def test_a_refresh_whose_snapshot_is_promoted_while_it_is_tried_finds_its_flip_done(beside: Beside) -> None:
    dag = refresh_dag(RANKING)
    started = beside.run(dag, "canary", canary_fraction=0.5)
    beside.shop.promotion.flip(beside.version, actor="canary", reason="no worse")
    assert beside.run(dag, "decide", started=started).is_done
    flipped = beside.run(dag, "flip", started=started)
    assert (flipped["moved"], flipped["version"], flipped["after"]["actor"]) == (
        False,
        beside.version.version,
        "canary",
    )


def test_a_refresh_that_a_rollback_overtakes_while_it_is_tried_is_fenced(beside: Beside) -> None:
    dag = refresh_dag(RANKING)
    started = beside.run(dag, "canary", canary_fraction=0.5)
    beside.shop.back()
    assert beside.run(dag, "decide", started=started).xcom_value["verdict"] == "none"
    with pytest.raises(AirflowFailException, match="FlipFenced"):
        beside.run(dag, "flip", started=started)
