"""One stack for all tests of this folder: Redis, Airflow and the service, and two snapshots that a refresh built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest
from playwright.sync_api import Page

from infra.config.settings import CHECKOUT, settings
from infra.local.airflow_client import ENDED, PASSWORDS_FILE, AirflowClient
from infra.local.world.generate import generate
from infra.local.world.size import WorldSize
from tests.browser.conftest import browser
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import free_port

__all__ = ["browser"]

REFRESH, ROLLBACK, PROMOTE = "snapshot_refresh_ranking", "snapshot_rollback", "snapshot_promote"
FRESHNESS = "snapshot_freshness"
VIEWER = "vera"
"""A user of Airflow who may look and not act."""

NAMED = "bea"
"""One who may promote past failed checks."""

READS_S = 3.0
"""How long a person looks at a question at least."""

SIZE = WorldSize(
    users=sized(400, full=22_500), items=sized(600, full=20_000), events=sized(12_000, full=1_000_000), seed=7
)
SETTINGS = {
    "HEADGATE_EMBEDDING_DIM": sized("16", full="128"),
    "HEADGATE_CANDIDATES_PER_USER": sized("100", full="1000"),
    "HEADGATE_RANKER_TREES": "20",
    "HEADGATE_SPARK_DRIVER_MEMORY": sized("1g", full="3g"),
    "HEADGATE_REDIS_MAXMEMORY_MB": sized("128", full="1024"),
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"admin:admin,{VIEWER}:viewer,{NAMED}:user",
    "HEADGATE_BREAK_GLASS_USERS": f"airflow:{NAMED}",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # 5 s fail a task where tests run beside others
}


@dataclass(frozen=True)
class Platform:
    """A running stack of these tests' own."""

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

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, *, note: str) -> dict[str, object]:
        """Answer what a task asks a person, as Airflow's page does, until it has ended well. Returns the question.

        Airflow loses an answer that comes before its scheduler has noticed that the task waits, and asks again: so it is given
        after a moment, as people do, and again where it is asked again.
        """
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}"
        question: dict[str, object] = {}
        since = time.monotonic()
        with self.as_admin() as http:
            while (state := http.get(path).raise_for_status().json()["state"]) != "success":
                assert state not in {"failed", "upstream_failed"}, self.said(dag_id, run_id)
                if state != "awaiting_input":
                    since = time.monotonic()
                elif time.monotonic() - since > READS_S:
                    question = http.get(f"{path}/-1/hitlDetails").raise_for_status().json()
                    answer = {"chosen_options": [option], "params_input": {"note": note}}
                    http.patch(f"{path}/-1/hitlDetails", json=answer).raise_for_status()
                    since = time.monotonic()
                time.sleep(0.2)
        return question

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task of a run and what follows, as the button on its page does; they run again."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "include_downstream": True,
            "only_failed": False,
        }
        with self.as_admin() as http:
            http.post(f"/api/v2/dags/{dag_id}/clearTaskInstances", json=body).raise_for_status()

    def said(self, dag_id: str, run_id: str) -> str:
        """What the run's first failed task said."""
        failure = self.airflow.failure(dag_id, run_id)
        assert failure is not None
        return failure.error

    def events(self, dag_id: str, event: str) -> list[dict[str, object]]:
        """Airflow's audit log of a DAG, newest first."""
        query = {"dag_id": dag_id, "event": event, "order_by": "-when"}
        with self.as_admin() as http:
            answer = http.get("/api/v2/eventLogs", params=query).raise_for_status().json()
        found: list[dict[str, object]] = answer["event_logs"]
        return found

    def as_admin(self) -> AbstractContextManager[httpx.Client]:
        """Airflow's REST API, logged in."""
        return self.as_user("admin")

    @contextmanager
    def as_user(self, user: str) -> Iterator[httpx.Client]:
        """The same, as somebody else."""
        password = json.loads((self.home / "airflow" / PASSWORDS_FILE).read_text())[user]
        with httpx.Client(base_url=self.airflow.url, timeout=30, trust_env=False) as http:
            answer = http.post("/auth/token", json={"username": user, "password": password}).raise_for_status()
            http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            yield http

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


@pytest.fixture(scope="package")
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
        for dag_id in (REFRESH, ROLLBACK, PROMOTE, FRESHNESS):
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


@dataclass(frozen=True)
class Rejection:
    """What a person rejected: the question; how the run ended; what the records said while nothing had gone live."""

    question: dict[str, object]
    run_state: str
    history: dict[str, list[dict[str, object]]]


@dataclass(frozen=True)
class Builds:
    """One after the other; the second is live. The first asked for approval: it was rejected, asked again, and was approved."""

    first: Build
    second: Build
    rejection: Rejection


@pytest.fixture(scope="package")
def builds(platform: Platform) -> Builds:
    source: dict[str, object] = {"source": str(platform.world), "format": "world"}
    run_id = platform.airflow.trigger(REFRESH, conf={**source, "approval": "ask"})
    question = platform.answer(REFRESH, run_id, "approve", "Reject", note="too early in the day")
    run_state = platform.ended(REFRESH, run_id)
    history = json.loads(platform.command("infra.snapshots", "history", "--json").stdout)
    platform.clear(REFRESH, run_id, "approve")
    platform.answer(REFRESH, run_id, "approve", "Approve", note="now it may")
    first = _went_live(platform, run_id)
    second = _went_live(platform, platform.airflow.trigger(REFRESH, conf=source))
    return Builds(first, second, Rejection(question, run_state, history))


@pytest.fixture(scope="package")
def two_builds(builds: Builds) -> tuple[Build, Build]:
    """One after the other; the second is live."""
    return builds.first, builds.second


def _went_live(platform: Platform, run_id: str) -> Build:
    assert platform.ended(REFRESH, run_id) == "success", platform.said(REFRESH, run_id)
    version = str(platform.airflow.result(REFRESH, run_id, "flip")["version"])
    platform.seconds_until_served(f"predictions_{version}")
    return Build(run_id, version)


def log_in(page: Page, platform: Platform, *, user: str = "admin") -> None:
    """To Airflow's home."""
    passwords = json.loads((platform.home / "airflow" / PASSWORDS_FILE).read_text())
    page.goto(platform.airflow.url)
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", passwords[user])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Dags").first.wait_for()
