"""The class archive: named for its Java and Spark, made in the background, appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.config.settings import CHECKOUT
from infra.local.class_archive import ClassArchive, make

_NO_JAVA = """#!/bin/sh
touch "$0.ran"
{then}
"""


def test_another_java_has_another_archive(tmp_path: Path) -> None:
    first, second = (ClassArchive(tmp_path, java_home=tmp_path / name) for name in ("jdk-17", "jdk-21"))
    assert first.path != second.path and first.path.parent == tmp_path
    assert f"-XX:SharedArchiveFile={first.path}" in first.variables()["SPARK_SUBMIT_OPTS"]
    assert first.command()[-1] == str(first.path)


def test_one_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(tmp_path / "jdk", then="exit 3", monkeypatch=monkeypatch)
    assert make(tmp_path / "tools" / "classes.jsa") != 0
    assert (tmp_path / "jdk" / "bin" / "java.ran").exists()
    assert list((tmp_path / "tools").iterdir()) == []


def test_one_that_is_ended_leaves_nothing_and_the_next_clears_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = java(tmp_path / "jdk", then="exec sleep 60", monkeypatch=monkeypatch)
    tools = tmp_path / "tools"
    archive = ClassArchive(tools, java_home=home)
    for how, left in ((signal.SIGKILL, 1), (signal.SIGTERM, 0)):
        process = subprocess.Popen(archive.command(), cwd=CHECKOUT, env=dict(os.environ), start_new_session=True)
        started = home / "bin" / "java.ran"
        give_up = time.monotonic() + 60
        while not started.exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        started.unlink()
        process.send_signal(how)
        process.wait(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the Java that it started
        assert len(list(tools.iterdir())) == left


def java(home: Path, *, then: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A JAVA_HOME whose java only notes that it was called."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(_NO_JAVA.format(then=then))
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    return home
