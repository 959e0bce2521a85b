"""The demo's benchmark measures what the checkout holds, and sees what still runs from a clone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.config.settings import CHECKOUT
from tests.bench.bench_demo import clone_environment, make_clone, phases_of, running_from


def test_a_clone_holds_what_the_checkout_holds_and_has_a_home_and_ports_of_its_own(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    make_clone(clone)
    here = Path(__file__).relative_to(CHECKOUT)
    assert (clone / here).read_bytes() == Path(__file__).read_bytes() and not (clone / ".venv").exists()
    environment = clone_environment(clone)
    assert environment["HEADGATE_HOME"] == str(clone / ".headgate") and "PATH" in environment
    ports = {environment[f"HEADGATE_{part}_PORT"] for part in ("REDIS", "AIRFLOW", "RANKING")}
    assert len(ports) == 3 and {name for name in environment if name.startswith("HEADGATE_")} == {
        "HEADGATE_HOME",
        *(f"HEADGATE_{part}_PORT" for part in ("REDIS", "AIRFLOW", "RANKING")),
    }


def test_the_phases_are_those_of_the_last_result() -> None:
    said = 'installing\n{"a": 1}\n{"seconds": {"stack": 30.25, "total": 99}, "task_seconds": {"embed": 25}}\nbye\n'
    assert phases_of(said) == {"stack": 30.25, "total": 99.0, "task_embed": 25.0}
    with pytest.raises(RuntimeError, match="printed no result"):
        phases_of("nothing\n")


def test_a_process_that_works_in_the_clone_is_seen_until_it_ends(tmp_path: Path) -> None:
    assert running_from(tmp_path) == []
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=tmp_path)
    try:
        assert [line.split()[0] for line in running_from(tmp_path)] == [str(process.pid)]
    finally:
        process.communicate()
    assert running_from(tmp_path) == []
