"""Processes: known again by number and birth, ended with everything they made, and nobody else's touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.local.stack.processes import Launch, ProcessHouse

_ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ProcessHouse]:
    made = ProcessHouse(tmp_path)
    yield made
    for name in made.names():
        made.stop(name, grace_s=0.1)


def shell(script: str, folder: Path) -> Launch:
    return Launch(["sh", "-c", script], _ENVIRONMENT, folder, "f1")


def until(holds: Callable[[], bool]) -> None:
    """Returns as soon as it holds; fails after ten seconds."""
    ends = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.01)


def test_a_started_process_is_known_again_and_ends_when_told(house: ProcessHouse, tmp_path: Path) -> None:
    record = house.start("one", shell("exec sleep 1000", tmp_path))
    assert ProcessHouse(tmp_path).running("one") == record
    assert house.stop("one") == 1
    assert house.running("one") is None and not house.started("one") and house.names() == []
    assert not psutil.pid_exists(record.pid) or psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE


def test_a_later_process_with_the_same_number_is_never_touched(house: ProcessHouse, tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        born = psutil.Process(stranger.pid).create_time()
        (tmp_path / "run").mkdir()
        text = json.dumps({"pid": stranger.pid, "created_s": born - 60, "fingerprint": "f1"})
        (tmp_path / "run" / "one.json").write_text(text)
        assert house.running("one") is None and house.family("one") == []
        assert house.stop("one") == 0
        assert stranger.poll() is None, "the stranger was killed"
        assert not house.started("one")
    finally:
        stranger.kill()
        stranger.wait()


def test_a_record_from_before_the_machine_started_counts_for_nothing(house: ProcessHouse, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    text = json.dumps({"pid": os.getpid(), "created_s": psutil.boot_time() - 3600, "fingerprint": "f1"})
    (tmp_path / "run" / "one.json").write_text(text)
    assert house.running("one") is None and house.family("one") == []


def test_everything_it_made_ends_with_it_whatever_it_did_to_get_away(house: ProcessHouse, tmp_path: Path) -> None:
    script = """
        setsid sleep 1001 &                    # a session of its own: found by the tree or the mark
        (setsid sleep 1002 &)                  # and without a parent: found by the mark
        env -i "$(command -v sleep)" 1003 &    # no mark: found by the tree
        (env -i "$(command -v sleep)" 1004 &)  # neither mark nor parent: found by the session
        (trap '' TERM INT; exec sleep 1005) &  # does not listen: killed
        exec sleep 1006
    """
    house.start("one", shell(script, tmp_path))

    def sleepers() -> set[str]:
        return {process.cmdline()[-1] for process in house.family("one") if process.name() == "sleep"}

    wanted = {"1001", "1002", "1003", "1004", "1005", "1006"}
    until(lambda: sleepers() == wanted)
    family = house.family("one")
    assert house.stop("one", grace_s=1.0) >= 6
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_children_of_a_dead_parent_are_found(house: ProcessHouse, tmp_path: Path) -> None:
    record = house.start("one", shell("sleep 1001 & sleep 1002", tmp_path))
    until(lambda: len(house.family("one")) == 3)
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: house.running("one") is None)
    assert len(house.family("one")) == 2 and house.names() == ["one"]
    assert house.stop("one") == 2
    assert house.family("one") == []


def test_a_torn_record_does_not_hide_what_runs(house: ProcessHouse, tmp_path: Path) -> None:
    house.start("one", shell("exec sleep 1000", tmp_path))
    (tmp_path / "run" / "one.json").write_text('{"pid": 12')
    assert house.running("one") is None and house.names() == ["one"]
    assert house.stop("one") == 1


def test_another_homes_processes_are_left_alone(house: ProcessHouse, tmp_path: Path) -> None:
    other = ProcessHouse(tmp_path / "other")
    kept = other.start("one", shell("exec sleep 1000", tmp_path))
    house.start("one", shell("exec sleep 1000", tmp_path))
    house.stop("one")
    assert house.names() == [] and other.running("one") == kept
    other.stop("one")


def test_ctrl_c_reaches_a_process_whose_starter_ignores_it(house: ProcessHouse, tmp_path: Path) -> None:
    code = "import time\nprint('ready', flush=True)\ntry: time.sleep(1000)\nexcept KeyboardInterrupt: print('in order', flush=True)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a job in the background
    try:
        house.start("one", Launch([sys.executable, "-c", code], _ENVIRONMENT, tmp_path, "f1"))
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: "ready" in house.log("one").read_text())
    house.stop("one", how=signal.SIGINT)
    assert "in order" in house.log("one").read_text()


def test_the_logs_tail_is_its_last_lines(house: ProcessHouse, tmp_path: Path) -> None:
    assert "is not there" in house.log_tail("one")
    record = house.start("one", shell("seq 1 40; echo the end >&2", tmp_path))
    until(lambda: house.log("one").read_text().endswith("the end\n"))
    tail = house.log_tail("one").splitlines()
    assert tail[0] == f"{house.log('one')} ends with:" and tail[-1].strip() == "the end" and len(tail) == 16
    assert record.fingerprint == "f1"
