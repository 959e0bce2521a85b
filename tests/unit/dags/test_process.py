"""A job as a session of processes: its lines, its end, and that nothing of it outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dags import process
from dags.process import JobProcess, Line
from infra.config.settings import CHECKOUT


def started(code: str, **env: str) -> JobProcess:
    return JobProcess([sys.executable, "-c", textwrap.dedent(code)], env=env, cwd=CHECKOUT)


def until(holds: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    ends = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_lines_of_both_streams_come_in_order_and_the_last_needs_no_end() -> None:
    job = started(
        """
        import sys
        print("one"); print("two"); sys.stdout.write("three")
        sys.stderr.write("note\\r\\n" + "0 %\\r50 %\\r100 %\\n")
        """
    )
    lines = list(job.lines())
    assert [line.text for line in lines if line.stream == "stdout"] == ["one", "two", "three"]
    assert [line.text for line in lines if line.stream == "stderr"] == ["note", "100 %"]
    assert job.wait() == 0


def test_bytes_that_are_no_text_and_a_line_without_end_are_passed_on() -> None:
    job = started("import sys; sys.stdout.buffer.write(b'\\xff\\n' + b'x' * 3_000_000)")
    first, *rest = job.lines()
    assert first == Line("stdout", "\ufffd")
    assert sum(len(line.text) for line in rest) == 3_000_000
    assert len(rest) > 1, "held in memory as a whole"


def test_a_job_that_reads_its_input_finds_none() -> None:
    job = started("import sys; print(repr(sys.stdin.read()))")
    assert [line.text for line in job.lines()] == ["''"]


def test_a_job_draws_no_bars_and_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    code = """
        from infra.config import console
        with console.progress("count", total=3) as advance:
            advance(3)
        console.notes.print("[red]red[/]")
        """
    texts = [line.text for line in started(code).lines()]
    assert texts[0].startswith("count: 3 of 3 done in")
    assert texts[1:] == ["red"]


GRANDCHILDREN = """
    import os, subprocess, sys, time
    sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.{how}); print(1, flush=True); time.sleep(600)"
    other_group = subprocess.Popen([sys.executable, "-c", sleep], stdout=subprocess.PIPE, process_group=0)
    same_group = subprocess.Popen([sys.executable, "-c", sleep], stdout=subprocess.PIPE)
    for child in (other_group, same_group):
        child.stdout.readline()
    print(os.getpid(), other_group.pid, same_group.pid, flush=True)
    {then}
"""


@pytest.mark.parametrize("how", ["SIG_DFL", "SIG_IGN"], ids=["polite", "deaf to SIGTERM"])
def test_stopping_ends_the_job_and_all_that_it_started(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.5)
    job = started(GRANDCHILDREN.format(how=how, then="time.sleep(600)"))
    pids = [int(pid) for pid in next(iter(job.lines())).text.split()]
    assert len(pids) == 3 and all(running(pid) for pid in pids)
    job.stop()
    until(lambda: not any(running(pid) for pid in pids))
    assert job.wait() == -signal.SIGTERM


def test_a_job_that_ended_is_not_waited_for_because_of_what_it_left_running() -> None:
    job = started(GRANDCHILDREN.format(how="SIG_DFL", then="os._exit(3)"))
    pids = [int(pid) for pid in next(job.lines()).text.split()]
    assert list(job.lines()) == []
    assert job.wait() == 3
    assert running(pids[1])
    job.stop()
    until(lambda: not any(running(pid) for pid in pids))


def test_stopping_what_has_ended_is_fine() -> None:
    job = started("")
    job.wait()
    job.stop()
    assert job.wait() == 0


def test_stopping_leaves_other_processes_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as stranger:
        job = started("import time; time.sleep(600)")
        job.stop()
        assert running(stranger.pid)
        stranger.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent")
def test_a_job_whose_task_was_killed_outright_ends_too(tmp_path: Path) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from dags.process import JobProcess
        job = JobProcess([sys.executable, "-c", "import time; time.sleep(600)"], env={{}}, cwd=Path({str(tmp_path)!r}))
        print(job.pid, flush=True)
        job.wait()
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as task:
        assert task.stdout is not None
        pid = int(task.stdout.readline())
        assert running(pid)
        os.kill(task.pid, signal.SIGKILL)
        until(lambda: not running(pid))


def test_a_job_may_be_stopped_while_its_lines_are_read() -> None:
    """As Airflow does it: on_kill comes from a signal's handler while `execute` reads."""
    job = started("import time; print('up', flush=True); time.sleep(600)")
    lines = job.lines()
    assert next(lines).text == "up"
    threading.Timer(0.1, job.stop).start()
    assert list(lines) == []
    assert job.wait() == -signal.SIGTERM
