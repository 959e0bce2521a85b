"""The report of a benchmark: what it keeps, and how it tells its own processes from those that disturb it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.bench import report as report_module
from tests.bench.report import Report

BUSY = "while True: pass"
PARENT = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {BUSY!r}], start_new_session=True).pid, flush=True)
sys.stdin.read()
"""


def test_what_a_benchmark_starts_is_its_own_also_when_its_parent_has_gone() -> None:
    watch = report_module._ForeignCpu(root=os.getpid())
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None and parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        watch.look()
        parent.stdin.close()
        parent.wait(timeout=60)
        assert child.ppid() != parent.pid
        watch.cores()
        assert (child.pid, child.create_time()) in watch.mine
        assert child.pid not in {pid for pid, _ in watch.used()}
    finally:
        child.kill()
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_what_others_use_is_counted() -> None:
    mine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        watch = report_module._ForeignCpu(root=mine.pid)
        process = psutil.Process(other.pid)
        began = process.cpu_times().user
        ends = time.monotonic() + 60
        while process.cpu_times().user < began + 0.2:
            assert time.monotonic() < ends
            time.sleep(0.02)
        assert watch.cores() > 0
        assert watch.used()[(other.pid, process.create_time())] >= 0.15
        assert mine.pid not in {pid for pid, _ in watch.used()}
    finally:
        for child in (mine, other):
            child.kill()
            child.communicate()


def test_a_file_is_valid_only_where_each_part_of_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "commit", lambda: "abc")
    Report("x", figures={"a": 1.0}, foreign_cpu_cores=0.5).write(folder=tmp_path)
    path = Report("x", figures={"b": 2.0}).write(folder=tmp_path)
    fields = json.loads(path.read_text())
    assert fields["figures"] == {"a": 1.0, "b": 2.0} and fields["valid"] is False
    Report("x", figures={"a": 3.0, "b": 4.0}).write(folder=tmp_path)
    fields = json.loads(path.read_text())
    assert fields["figures"] == {"a": 3.0, "b": 4.0} and fields["valid"] is True, "measured anew, all of it"
    monkeypatch.setattr(report_module, "commit", lambda: "other")
    Report("x", figures={"b": 5.0}).write(folder=tmp_path)
    assert json.loads(path.read_text())["figures"] == {"b": 5.0}, "another commit's figures are not kept"


def test_what_holds_no_time_is_valid_on_a_busy_machine(tmp_path: Path) -> None:
    for timed in (True, False):
        report = Report(f"timed {timed}", figures={"a": 1.0}, foreign_cpu_cores=0.5, timed=timed)
        fields = json.loads(report.write(folder=tmp_path).read_text())
        assert report.valid is fields["valid"] is not timed and fields["foreign_cpu_cores"] == 0.5
