"""One setting takes the batch jobs to a Spark cluster: a real standalone master and two workers on loopback, same results."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyspark
import pytest

from infra.config.settings import CHECKOUT
from infra.snapshots import tables
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.tiny_dataset import RANKING, taste_events, write_dataset

USERS, ITEMS = 300, 200
SPARK_HOME = Path(pyspark.__file__).parent
START_S = 60


@contextmanager
def _daemon(log: Path, *command: str, ready: str) -> Iterator[str]:
    """A Spark daemon that knows nothing of the checkout; yields its log once the line came, and stops it at the end."""
    names = ("PATH", "JAVA_HOME", "HOME", "LANG")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}
    spark_class = [str(SPARK_HOME / "bin" / "spark-class"), *command]
    with log.open("wb") as file:
        process = subprocess.Popen(spark_class, cwd=log.parent, env=environment, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + START_S
        while ready not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not say {ready!r}:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield log.read_text()
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster of one master and two workers of one core."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"spark://127.0.0.1:{port}"
    at_loopback = ("--host", "127.0.0.1", "--webui-port", "0")
    with ExitStack() as stack:
        command = ["org.apache.spark.deploy.master.Master", *at_loopback, "--port", str(port)]
        stack.enter_context(_daemon(tmp_path / "master.log", *command, ready="New state: ALIVE"))
        for number in (1, 2):
            size = ["--cores", "1", "--memory", "1g", "--work-dir", str(tmp_path / f"worker-{number}")]
            command = ["org.apache.spark.deploy.worker.Worker", *at_loopback, *size, address]
            log = tmp_path / f"worker-{number}.log"
            stack.enter_context(_daemon(log, *command, ready="Successfully registered with master"))
        yield address


def _run(job: str, *arguments: str, store: Path, master: str) -> dict[str, object]:
    environment = os.environ | {
        "HEADGATE_STORE": str(store),
        "HEADGATE_SPARK_MASTER": master,
        "HEADGATE_SPARK_DRIVER_MEMORY": "1g",
        "HEADGATE_SPARK_EXECUTOR_MEMORY": "512m",
        "HEADGATE_EMBEDDING_DIM": "16",
        "HEADGATE_CANDIDATES_PER_USER": "50",
    }
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", f"spark_jobs.{job}", "--application", "ranking", *arguments]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fields: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return fields


def _build(store: Path, *, master: str) -> pa.Table:
    version = SnapshotStore(str(store), RANKING).allocate(generation=0, actor="test")
    _run("embeddings", "--version", version.version, "--dataset", "tiny", store=store, master=master)
    made = _run("candidates", "--version", version.version, store=store, master=master)
    files = version.storage.files(f"{made['path']}/candidates")
    return pa.Table.from_batches(tables.candidate_batches(version.storage, files)).sort_by("user_index")


@pytest.mark.timeout(600)
def test_a_cluster_builds_the_candidates_that_this_machine_builds(master: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_dataset(str(store), taste_events(users=USERS, items=ITEMS, events=5000, seed=2), users=USERS, items=ITEMS)
    on_cluster = _build(store, master=master)
    here = _build(store, master="local[2]")
    assert on_cluster.num_rows == USERS
    assert on_cluster.equals(here), "the sums are added in an order that does not depend on the master"
    executors = [log for log in tmp_path.glob("worker-*/app-*/*/stderr") if log.stat().st_size]
    assert {log.relative_to(tmp_path).parts[0] for log in executors} == {"worker-1", "worker-2"}
