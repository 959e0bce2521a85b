"""Builds in a real Airflow that are killed, run beside their own zombie, wait for each other, or lose Airflow half-way."""

from __future__ import annotations

import time
from urllib.parse import quote

import psutil
import pytest

from tests.e2e.conftest import REFRESH, Build, Platform
from tests.fixtures.proof import sized

pytestmark = pytest.mark.timeout(sized(1200, full=3600))


def job_of(platform: Platform, module: str) -> psutil.Process:
    """The process of that step, once it is there."""
    while True:
        for process in psutil.process_iter():
            try:
                if module in process.cmdline() and process.environ().get("HEADGATE_HOME") == str(platform.home):
                    return process
            except psutil.Error:
                continue  # ended, or not ours
        time.sleep(0.05)


def tries(platform: Platform, run_id: str, task_id: str) -> int:
    path = f"/api/v2/dags/{REFRESH}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}"
    with platform.as_admin() as http:
        return int(http.get(path).raise_for_status().json()["try_number"])


def test_a_killed_step_is_tried_again_and_what_its_zombie_writes_late_hits_nothing(
    platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    run_id = platform.airflow.trigger(REFRESH, conf={"source": str(platform.world), "format": "world"})
    job_of(platform, "spark_jobs.candidates").kill()
    assert platform.ended(REFRESH, run_id) == "success"
    assert tries(platform, run_id, "candidates") == 2
    version = str(platform.airflow.result(REFRESH, run_id, "flip")["version"])
    live = platform.live()
    assert live[0] == version and version not in {build.version for build in two_builds}
    zombie = platform.command("spark_jobs.candidates", "--application", "ranking", "--version", version)
    assert zombie.returncode == 0, zombie.stderr
    verified = platform.command("infra.snapshots", "verify", "--version", version)
    assert verified.returncode == 0, verified.stderr
    assert platform.live() == live
    assert platform.served() == f"predictions_{version}"


def test_two_builds_at_once_and_airflow_stopped_in_the_middle_of_the_first_both_end_well(platform: Platform) -> None:
    before = platform.live()
    first, second = (
        platform.airflow.trigger(REFRESH, conf={"source": str(platform.world), "format": "world"}) for _ in range(2)
    )
    job_of(platform, "spark_jobs.embeddings")
    assert platform.command("infra.local", "down").returncode == 0
    up = platform.command("infra.local", "up")
    assert up.returncode == 0, up.stderr[-4000:]
    assert platform.live() == before, "nothing half-built went live, and Redis has its memory"
    assert [platform.ended(REFRESH, run_id) for run_id in (first, second)] == ["success", "success"]
    versions = [str(platform.airflow.result(REFRESH, run_id, "flip")["version"]) for run_id in (first, second)]
    assert len(set(versions)) == 2
    assert platform.live() == (versions[1], before[1] + 2), "one after the other"
    platform.seconds_until_served(f"predictions_{versions[1]}")
