"""serve_rivals: what the service is compared with: its model alone, and itself under BentoML's defaults."""

from __future__ import annotations

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
from tests.fixtures.service import Served, Stage, serving

_READY_S = 60.0
_MATRICES = 64


def model_calls_per_core_s(model: bytes, *, rows: int, seconds: float) -> float:
    """Calls a second of this thread's processor time, of the model on so many rows and nothing else.

    The rows are others each time, as users are: the same ones again and again are 12 % faster, for the processor learns the trees'
    turns by heart.
    """
    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    booster.set_param({"nthread": 1})
    rng = np.random.default_rng(1)
    matrices = [rng.random((rows, len(RANKER_FEATURES)), np.float32) for _ in range(_MATRICES)]
    for matrix in matrices:
        predict(booster, matrix)
    calls, began_s = 0, time.thread_time()
    while (spent_s := time.thread_time() - began_s) < seconds:
        predict(booster, matrices[calls % _MATRICES])
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
    with serving(stage, folder=folder, service="tests.bench.default_service:DefaultService") as served:
        _wait(served)
        yield served


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
