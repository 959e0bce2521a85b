"""The whole platform by Airflow's REST API and HTTP: each DAG runs once on a real stack, and the service answers accordingly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from infra.config.settings import CHECKOUT, settings
from infra.contracts.errors import InvalidRequest, MissingTool
from infra.local.airflow_client import ENDED, AirflowClient
from infra.local.tools import find_chromium
from infra.local.world.generate import generate
from infra.local.world.size import WorldSize
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import free_port

REFRESH, ROLLBACK, FRESHNESS = "snapshot_refresh_ranking", "snapshot_rollback", "snapshot_freshness"
SIZE = WorldSize(
    users=sized(400, full=22_500), items=sized(600, full=20_000), events=sized(12_000, full=1_000_000), seed=7
)
SETTINGS = {
    "HEADGATE_EMBEDDING_DIM": sized("16", full="128"),
    "HEADGATE_CANDIDATES_PER_USER": sized("100", full="1000"),
    "HEADGATE_RANKER_TREES": "20",
    "HEADGATE_SPARK_DRIVER_MEMORY": sized("1g", full="3g"),
    "HEADGATE_REDIS_MAXMEMORY_MB": sized("128", full="1024"),
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # 5 s fail a task where tests run beside others
}

_PAGE_MS = 60_000

pytestmark = pytest.mark.timeout(sized(1200, full=3600))


@dataclass(frozen=True)
class Platform:
    """A running stack of this module's own."""

    home: Path
    environment: Mapping[str, str]
    world: Path
    airflow: AirflowClient
    service_url: str

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`python -m infra.local ...` or another of this project's commands, in this stack's environment."""
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=CHECKOUT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def run(self, dag_id: str, fields: Mapping[str, object]) -> tuple[str, str]:
        """Trigger a DAG as its form does, and wait. Returns (run id, state)."""
        run_id = self.airflow.trigger(dag_id, conf=fields)
        return run_id, self.ended(dag_id, run_id)

    def ended(self, dag_id: str, run_id: str) -> str:
        """The run's state, once it has ended."""
        while (state := self.airflow.run_state(dag_id, run_id)) not in ENDED:
            time.sleep(0.2)
        return state

    def said(self, dag_id: str, run_id: str) -> str:
        """What the run's first failed task said."""
        failure = self.airflow.failure(dag_id, run_id)
        assert failure is not None
        return failure.error

    def live(self) -> tuple[str, int]:
        """(version, generation) of the alias, as the command line sees it."""
        done = self.command("infra.snapshots", "status", "--json")
        alias = json.loads(done.stdout)["live"]
        return alias["version"], alias["generation"]

    def served(self) -> str:
        """The snapshot that the service names in an answer."""
        body = {"user_id": "u0000003", "n": 10}
        answer = httpx.post(f"{self.service_url}/recommend", json=body, timeout=10).raise_for_status().json()
        assert len(answer["items"]) == 10
        return str(answer["snapshot"])

    def seconds_until_served(self, snapshot: str) -> float:
        """How long from now until an answer comes from that snapshot."""
        began = time.monotonic()
        while self.served() != snapshot:
            assert time.monotonic() - began < 60, f"{snapshot} is not served"
            time.sleep(0.05)
        return time.monotonic() - began


def processes_of(home: Path) -> list[str]:
    """Every process that runs for a stack of that home, or was started by one."""
    found = []
    for process in psutil.process_iter():
        try:
            words, variables = process.cmdline(), process.environ()
            if process.status() != psutil.STATUS_ZOMBIE and (
                variables.get("HEADGATE_HOME") == str(home) or any(str(home) in word for word in words)
            ):
                found.append(f"{process.pid} {' '.join(words)}")
        except psutil.Error:
            continue  # it has just ended, or is somebody else's
    return found


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("platform")
    home, world = root / "home", root / "world"
    generate(SIZE, world)
    ports = {f"HEADGATE_{name}_PORT": str(free_port()) for name in ("REDIS", "AIRFLOW", "RANKING")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HEADGATE_", "AIRFLOW"))}
    if settings().home.joinpath("tools").is_dir():  # what an earlier run unpacked need not be fetched again
        home.mkdir()
        (home / "tools").symlink_to(settings().home.resolve() / "tools")
    environment = inherited | SETTINGS | ports | {"HEADGATE_HOME": str(home)}
    airflow = AirflowClient(url=f"http://127.0.0.1:{ports['HEADGATE_AIRFLOW_PORT']}", home=home / "airflow")
    service_url = f"http://127.0.0.1:{ports['HEADGATE_RANKING_PORT']}"
    platform = Platform(home, environment, world, airflow, service_url)
    try:
        up = platform.command("infra.local", "up")
        assert up.returncode == 0, up.stderr[-4000:]
        for dag_id in (REFRESH, ROLLBACK, FRESHNESS):
            airflow.wait_for_dag(dag_id)
            airflow.unpause(dag_id)
        yield platform
    finally:
        down = platform.command("infra.local", "down")
        assert down.returncode == 0, down.stderr[-4000:]
    assert processes_of(home) == []
    again = platform.command("infra.local", "down")
    assert again.returncode == 0 and "nothing runs" in again.stderr


@dataclass(frozen=True)
class Build:
    """A refresh that went well, and the version that it put live."""

    run_id: str
    version: str


@pytest.fixture(scope="module")
def two_builds(platform: Platform) -> tuple[Build, Build]:
    """One after the other; the second is live."""
    return _build(platform), _build(platform)


def _build(platform: Platform) -> Build:
    run_id, state = platform.run(REFRESH, {"source": str(platform.world), "format": "world"})
    assert state == "success", platform.said(REFRESH, run_id)
    version = str(platform.airflow.result(REFRESH, run_id, "flip")["version"])
    platform.seconds_until_served(f"predictions_{version}")
    return Build(run_id, version)


def test_before_the_first_snapshot_nothing_is_ready_and_freshness_is_red(platform: Platform) -> None:
    assert httpx.get(f"{platform.service_url}/readyz").status_code == 503
    run_id, state = platform.run(FRESHNESS, {})
    assert state == "failed"
    assert platform.said(FRESHNESS, run_id).startswith("error: SnapshotNotFound: ranking has no live snapshot.")


@pytest.mark.parametrize(
    ("dag_id", "fields"),
    [
        (REFRESH, {"embedding_dim": 3}),
        (REFRESH, {"format": "xlsx"}),
        (REFRESH, {"candidates_per_user": "many"}),
        (ROLLBACK, {}),
        (ROLLBACK, {"reason": "bad"}),
        (ROLLBACK, {"reason": "too many duplicates", "version": "v1; reboot"}),
        (ROLLBACK, {"reason": "too many duplicates", "application": "cats"}),
    ],
    ids=str,
)
def test_the_server_refuses_a_bad_field_before_anything_runs(
    platform: Platform, dag_id: str, fields: Mapping[str, object]
) -> None:
    with pytest.raises(InvalidRequest, match="Airflow refused POST"):
        platform.airflow.trigger(dag_id, conf=fields)
    assert platform.airflow.running(dag_id) == []


def test_a_source_that_is_not_there_fails_with_the_mend_in_the_log(platform: Platform) -> None:
    run_id, state = platform.run(REFRESH, {"source": "/nowhere/events.csv"})
    assert state == "failed"
    failure = platform.airflow.failure(REFRESH, run_id)
    assert failure is not None and failure.task_id == "import"
    assert "/nowhere/events.csv" in failure.error and failure.error.startswith("error: DataRefused:")
    empty, state = platform.run(REFRESH, {})
    assert state == "failed"
    log = platform.airflow.log(REFRESH, empty, "import", try_number=1)
    assert any("No source of events" in line and "set it before `make up`" in line for line in log)


def test_each_refresh_goes_live_and_the_service_answers_from_it(
    platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    first, second = (platform.airflow.result(REFRESH, build.run_id, "flip") for build in two_builds)
    assert (first["generation"], second["generation"]) == (1, 2)
    assert str(second["after"]).count("airflow:admin") == 1, "the records name who clicked"
    assert platform.live() == (two_builds[1].version, 2)
    assert platform.served() == f"predictions_{two_builds[1].version}"
    assert httpx.get(f"{platform.service_url}/readyz").status_code == 200


def test_freshness_is_green_once_a_snapshot_is_live(platform: Platform, two_builds: tuple[Build, Build]) -> None:
    run_id, state = platform.run(FRESHNESS, {})
    assert two_builds and state == "success"
    assert platform.airflow.result(FRESHNESS, run_id, "ranking")["fresh"] is True


def test_a_failing_refresh_leaves_what_is_live_alone(platform: Platform, two_builds: tuple[Build, Build]) -> None:
    bad = platform.home / "bad.csv"
    bad.write_text("user,item,time\n" + "u1,i1,yesterday\n" * 50)
    run_id, state = platform.run(REFRESH, {"source": str(bad)})
    assert two_builds and state == "failed"
    assert "DataRefused" in platform.said(REFRESH, run_id)
    assert platform.live() == (two_builds[1].version, 2)


def test_a_rollback_is_served_within_seconds_and_no_earlier_build_can_undo_it(
    platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    first, second = two_builds
    reason = "too many duplicates; 'quoted' $(text)"
    run_id = platform.airflow.trigger(ROLLBACK, conf={"reason": reason})
    seconds = platform.seconds_until_served(f"predictions_{first.version}")
    assert platform.ended(ROLLBACK, run_id) == "success"
    assert seconds < 30, "from the click to an answer"
    after = platform.airflow.result(ROLLBACK, run_id, "rollback")["after"]
    assert isinstance(after, dict)
    assert (after["version"], after["actor"], after["reason"]) == (first.version, "airflow:admin", reason)

    # The second build flips again. It began before the rollback.
    _clear(platform, REFRESH, second.run_id, "flip")
    assert platform.ended(REFRESH, second.run_id) == "failed"
    assert "FlipFenced" in platform.said(REFRESH, second.run_id)
    assert platform.live() == (first.version, 3)

    forward = {"version": f"predictions_{second.version}", "reason": "it was the client"}
    assert platform.run(ROLLBACK, forward)[1] == "success"
    platform.seconds_until_served(f"predictions_{second.version}")


def test_the_forms_and_their_help_are_on_airflows_pages(platform: Platform) -> None:
    try:
        chromium = find_chromium()
    except MissingTool as error:
        if settings().require_all:
            raise
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(_PAGE_MS)
        _log_in(page, platform)
        page.goto(f"{platform.airflow.url}/dags/{ROLLBACK}")
        page.get_by_label("Dag Docs").click()
        page.get_by_text("It is safe while a refresh is running").wait_for()
        page.get_by_label("Close").first.click()
        page.get_by_label("Trigger Dag").first.click()
        form = page.get_by_role("dialog")
        for text in ("Feed ranking (ranking)", "Empty: the version before the live one.", "This field is required"):
            form.get_by_text(text).wait_for()
        submit = form.get_by_role("button", name="Trigger")
        expect(submit).to_be_disabled(timeout=_PAGE_MS)
        form.locator("#element_reason").fill("too many duplicates")
        expect(submit).to_be_enabled(timeout=_PAGE_MS)
        page.goto(f"{platform.airflow.url}/dags/{REFRESH}")
        page.get_by_label("Trigger Dag").first.click()
        page.get_by_text("Source of the events").wait_for()
        page.get_by_text("the setting, now spectral").wait_for()
        browser.close()


def _log_in(page: Page, platform: Platform) -> None:
    user, password = platform.airflow.credentials()
    page.goto(platform.airflow.url)
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Dags").first.wait_for()


def _clear(platform: Platform, dag_id: str, run_id: str, task_id: str) -> None:
    """Clear a task of a run and what follows, as the button on its page does; they run again."""
    user, password = platform.airflow.credentials()
    with httpx.Client(base_url=platform.airflow.url, timeout=30) as http:
        token = http.post("/auth/token", json={"username": user, "password": password}).json()["access_token"]
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "include_downstream": True,
            "only_failed": False,
        }
        headers = {"Authorization": f"Bearer {token}"}
        http.post(f"/api/v2/dags/{dag_id}/clearTaskInstances", json=body, headers=headers).raise_for_status()
