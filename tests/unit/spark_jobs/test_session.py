"""A session starts with a Java that Spark can use or says which one it wants; no process outlives the job that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.config.settings import CHECKOUT, Settings
from infra.contracts.errors import MissingTool
from spark_jobs.session import find_java, java_major

JOB = """
import functools, sys, time
import psutil
from spark_jobs.session import running

def work(folder, how, batches):
    open(folder + "/working", "w").close()
    if how == "forever":
        time.sleep(600)
    if how == "fail":
        raise ValueError("said by a worker")
    yield from batches

with running("test") as spark:
    frame = spark.range(7, numPartitions=2).mapInArrow(functools.partial(work, *sys.argv[1:]), "id long")
    print(frame.count())
print([child.name() for child in psutil.Process().children(recursive=True)])
"""


def _java(folder: Path, *, version: str, knows_modules: bool = True) -> Path:
    """A program that says it is that Java; returns its home."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    refuses = '[ "$1" = --add-modules ] && exit 1\n' if not knows_modules else ""
    program.write_text(f"#!/bin/sh\n{refuses}echo 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)
    return folder


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "")  # set, so that what is found does not outlive the test
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.parametrize(
    ("text", "major"),
    [('openjdk version "17.0.15" 2025', 17), ('java version "1.8.0_202"', 8), ('openjdk version "21"', 21), ("?", 0)],
)
def test_a_java_version_is_understood(text: str, major: int) -> None:
    assert java_major(text) == major


@pytest.mark.usefixtures("no_java")
def test_a_missing_java_is_an_error_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match=r"no Java on PATH.*set JAVA_HOME, or run: make demo"):
        find_java(Settings(home=tmp_path))


@pytest.mark.usefixtures("no_java")
def test_a_java_unpacked_into_the_checkout_is_found(tmp_path: Path) -> None:
    home = _java(tmp_path / "tools/jre/usr/lib/jvm/java-17", version="17.0.1")
    find_java(Settings(home=tmp_path))
    assert os.environ["JAVA_HOME"] == str(home)


@pytest.mark.parametrize(
    ("version", "knows_modules", "said"),
    [
        ("11.0.2", True, r"is Java 11; Spark needs 17 or later\. Point JAVA_HOME to a newer one"),
        ("17.0.2", False, r"has no module jdk\.incubator\.vector.*Point JAVA_HOME to a whole runtime"),
    ],
)
def test_an_unfit_java_is_refused_before_spark_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, knows_modules: bool, said: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(_java(tmp_path, version=version, knows_modules=knows_modules)))
    with pytest.raises(MissingTool, match=said):
        find_java(Settings(home=tmp_path))


def test_a_java_home_without_a_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingTool, match=r"bin/java does not run.*Point JAVA_HOME to a working Java"):
        find_java(Settings(home=tmp_path))


def _run(folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOB, str(folder), how]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)


def test_the_jvm_has_ended_when_a_job_ends(tmp_path: Path) -> None:
    done = _run(tmp_path, "once")
    assert done.stdout.splitlines() == ["7", "[]"], done.stderr


def test_what_a_worker_says_reaches_whoever_runs_the_job(tmp_path: Path) -> None:
    done = _run(tmp_path, "fail")
    assert done.returncode == 1 and "ValueError: said by a worker" in done.stderr


def test_a_job_that_is_told_to_stop_leaves_no_jvm_and_no_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-c", JOB, str(tmp_path), "forever"]
    job = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    started: list[psutil.Process] = []
    try:
        ends = time.monotonic() + 120
        while not (tmp_path / "working").exists():
            assert job.poll() is None and time.monotonic() < ends, "the job's workers did not start"
            time.sleep(0.1)
        started = psutil.Process(job.pid).children(recursive=True)
        assert {"java"} <= {process.name() for process in started} and len(started) >= 3
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=30) == -signal.SIGTERM
        _, alive = psutil.wait_procs(started, timeout=30)
        assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        for process in [*started, psutil.Process(job.pid)] if job.poll() is None else started:
            if process.is_running():
                process.kill()
        job.wait()
