"""serve_rivals: what the service is compared with: its model alone, and itself under BentoML's defaults."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import xgboost

from bentos.ranking.trees import predict
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.config.settings import CHECKOUT
from tests.fixtures.redis_server import free_port
from tests.fixtures.service import Served, Stage

_READY_S = 60.0


def model_calls_per_core_s(model: bytes, *, rows: int, seconds: float) -> float:
    """Calls a second of this thread's processor time, of the model on so many rows and nothing else."""
    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    booster.set_param({"nthread": 1})
    matrix = np.random.default_rng(1).random((rows, len(RANKER_FEATURES))).astype(np.float32)
    predict(booster, matrix)
    calls, began_s = 0, time.thread_time()
    while (spent_s := time.thread_time() - began_s) < seconds:
        predict(booster, matrix)
        calls += 1
    return calls / spent_s


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and of all that it started and that still runs."""
    first = psutil.Process(pid)
    times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
    return sum(taken.user + taken.system for taken in times)


@contextmanager
def default_serving(stage: Stage, *, folder: Path) -> Iterator[Served]:
    """The feed under BentoML's defaults over the same snapshot, with one worker; leaves no process."""
    port, log = free_port(), folder / "default.log"
    environment = {
        **os.environ,
        "HEADGATE_STORE": str(stage.root),
        "HEADGATE_REDIS_URL": stage.redis_url,
        "BENTOML_HOME": str(folder / "bentoml-default"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "tests.bench.default_service:DefaultService"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=CHECKOUT,
            env=environment,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        served = Served(f"http://127.0.0.1:{port}", stage, log, process.pid)
        _wait(served)
        yield served
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if psutil.pid_exists(process.pid) else []
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()


def _wait(served: Served) -> None:
    """Until it answers with a list; raises RuntimeError."""
    ends_s, seen = time.monotonic() + _READY_S, ""
    while time.monotonic() < ends_s:
        try:
            answer = httpx.post(f"{served.url}/recommend", json={"user_id": "u1"}, timeout=5)
        except httpx.HTTPError:
            time.sleep(0.2)  # not listening yet
            continue
        if answer.status_code == 200 and answer.json()["items"]:
            return
        seen = answer.text
        time.sleep(0.2)
    raise RuntimeError(f"BentoML's default service did not answer: {seen[:500]}\n{served.log.read_text()[-3000:]}")
