"""airflow_rollbacks: a whole stack of the benchmark's own; rollbacks by Airflow's REST API, alone and beside a build."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from infra.config import console
from infra.config.settings import CHECKOUT, settings
from infra.local.airflow_client import ENDED, AirflowClient
from infra.local.world.generate import generate
from infra.local.world.size import WorldSize
from tests.fixtures.redis_server import free_port

_REFRESH, _ROLLBACK = "snapshot_refresh_ranking", "snapshot_rollback"
_POLL_S = 0.02
_PATIENCE_S = 600.0


@dataclass
class Rollbacks:
    """A running stack with two versions that were live. fenced: builds that ended FENCED because a rollback went first."""

    airflow: AirflowClient
    service_url: str
    world: Path
    versions: tuple[str, str] = ("", "")
    fenced: int = 0
    _builds: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """Two refreshes, one after the other."""
        for dag_id in (_REFRESH, _ROLLBACK):
            self.airflow.wait_for_dag(dag_id, timeout_s=120.0)
            self.airflow.unpause(dag_id)
        self.versions = (self._built(), self._built())
        self._until_served(self.versions[1])

    def quiet(self, n: int) -> list[float]:
        """Seconds of each of n rollbacks, one after the other, while nothing else runs."""
        return [self._roll_to_and_fro() for _ in range(n)]

    def mid_build(self, n: int) -> list[float]:
        """The same, each begun and ended while a refresh ran; refreshes are started as long as there is need."""
        taken: list[float] = []
        while len(taken) < n:
            run_id = self.airflow.trigger(_REFRESH, conf=self._source)
            self._until_building(run_id)
            while len(taken) < n:
                seconds = self._roll_to_and_fro()
                if self.airflow.run_state(_REFRESH, run_id) in ENDED:
                    break
                taken.append(seconds)
                console.say(f"rollback {len(taken)} of {n} during a build: {seconds:.2f} s")
            self._ended(_REFRESH, run_id)
            failure = self.airflow.failure(_REFRESH, run_id)
            if failure is None or "FlipFenced" not in failure.error:
                raise RuntimeError(f"a build that a rollback overtook was not fenced: {failure}")
            self.fenced += 1
        return taken

    @property
    def _source(self) -> dict[str, object]:
        return {"source": str(self.world), "format": "world"}

    def _built(self) -> str:
        run_id = self.airflow.trigger(_REFRESH, conf=self._source)
        if self._ended(_REFRESH, run_id) != "success":
            raise RuntimeError(f"the refresh failed: {self.airflow.failure(_REFRESH, run_id)}")
        return str(self.airflow.result(_REFRESH, run_id, "flip")["version"])

    def _roll_to_and_fro(self) -> float:
        """From the request to the first answer from the other of the two versions; waits for the run's end besides."""
        there = next(version for version in self.versions if self._served() != f"predictions_{version}")
        began_s = time.monotonic()
        run_id = self.airflow.trigger(_ROLLBACK, conf={"reason": "measured", "version": there})
        self._until_served(there)
        seconds = time.monotonic() - began_s
        if self._ended(_ROLLBACK, run_id) != "success":
            raise RuntimeError(f"the rollback failed: {self.airflow.failure(_ROLLBACK, run_id)}")
        return seconds

    def _served(self) -> str:
        body = {"user_id": "u0000003", "n": 10}
        answer = httpx.post(f"{self.service_url}/recommend", json=body, timeout=20).raise_for_status()
        return str(answer.json()["snapshot"])

    def _until_served(self, version: str) -> None:
        ends_s = time.monotonic() + _PATIENCE_S
        while self._served() != f"predictions_{version}":
            if time.monotonic() > ends_s:
                raise RuntimeError(f"{version} is not served")
            time.sleep(_POLL_S)

    def _until_building(self, run_id: str) -> None:
        """Until the build has its generation and works on its data."""
        for change in self.airflow.follow(_REFRESH, run_id, poll_s=0.2):
            if change.task_id == "import" and change.state == "success":
                return
        raise RuntimeError(f"the refresh ended early: {self.airflow.failure(_REFRESH, run_id)}")

    def _ended(self, dag_id: str, run_id: str) -> str:
        ends_s = time.monotonic() + _PATIENCE_S
        while (state := self.airflow.run_state(dag_id, run_id)) not in ENDED:
            if time.monotonic() > ends_s:
                raise RuntimeError(f"{dag_id} {run_id} does not end")
            time.sleep(0.1)
        return state


@contextmanager
def stack(root: Path, *, users: int) -> Iterator[Rollbacks]:
    """Redis, Airflow and the service on free ports over a generated world of that many users; stopped after the block."""
    home, world = root / "home", root / "world"
    generate(WorldSize(users=users, items=max(600, users), events=50 * users, seed=7), world)
    if settings().home.joinpath("tools").is_dir():  # what was unpacked earlier need not be fetched again
        home.mkdir()
        (home / "tools").symlink_to(settings().home.resolve() / "tools")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HEADGATE_", "AIRFLOW"))}
    ports = {f"HEADGATE_{part}_PORT": str(free_port()) for part in ("REDIS", "AIRFLOW", "RANKING")}
    environment = inherited | ports | {"HEADGATE_HOME": str(home)}
    airflow = AirflowClient(url=f"http://127.0.0.1:{ports['HEADGATE_AIRFLOW_PORT']}", home=home / "airflow")
    try:
        _local("up", environment)
        with airflow:
            yield Rollbacks(airflow, f"http://127.0.0.1:{ports['HEADGATE_RANKING_PORT']}", world)
    finally:
        _local("down", environment)


def _local(word: str, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "infra.local", word]
    subprocess.run(command, cwd=CHECKOUT, env=dict(environment), stdout=subprocess.DEVNULL, check=True)
