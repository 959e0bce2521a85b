"""bench_demo: how long a newcomer waits: `python -m tests.bench.bench_demo [--repeats N]`.

Clones the checkout into a temporary folder, with what is not committed yet, and runs its `make demo` to exit 0, with ports and a
HEADGATE_HOME of the clone's own; then `make down`, and looks whether anything still runs. warm_s counts all of it: making the
virtual environment, installing, the stack, the data, the snapshots, the recommendations, the rollback and the way forward.

Warm caches: before it is timed, `make install` runs once in the clone, which leaves every wheel in the caches that pip and uv keep
for the user; then the clone's .venv and .headgate are deleted. Nothing but these caches (and the system's page cache) is warm.
Tools that the machine lacks (Redis, Java) are therefore fetched and unpacked within the measured time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from infra.config import console
from infra.config.settings import CHECKOUT
from tests.bench.report import Report
from tests.fixtures.redis_server import free_port

_KEPT_VARIABLES = (
    "HOME",
    "LANG",
    "LC_ALL",
    "PATH",
    "JAVA_HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "PIP_CACHE_DIR",
    "UV_CACHE_DIR",
)
"""What a newcomer's shell has, and where the caches are. Indexes and proxies are carried over as well."""

_INDEX_PREFIXES = ("PIP_", "UV_", "SSL_", "http_", "https_", "HTTP_", "HTTPS_", "no_", "NO_", "REQUESTS_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="whole runs; the median counts")
    chosen = parser.parse_args()
    report = Report("demo")
    runs = []
    for number in range(chosen.repeats):
        with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
            console.say(f"run {number + 1} of {chosen.repeats}: a clone in {folder}")
            runs.append(run(Path(folder) / "headgate", report))
    report.figures["warm_s"] = round(statistics.median(seconds for seconds, _ in runs), 1)
    _, phases = min(runs, key=lambda found: abs(found[0] - report.figures["warm_s"]))
    report.controls |= {f"{phase}_s": seconds for phase, seconds in phases.items()}
    report.controls["repeats"] = chosen.repeats
    path = report.write()
    console.result({"path": str(path), "valid": report.valid, **report.figures, **report.controls})


def run(clone: Path, report: Report) -> tuple[float, dict[str, float]]:
    """Seconds of one `make demo` to exit 0, and of the phases that it tells itself."""
    make_clone(clone)
    environment = clone_environment(clone)
    make(clone, "install", environment)
    for left in (".venv", ".headgate"):
        shutil.rmtree(clone / left, ignore_errors=True)
    try:
        with report.watching():
            began = time.monotonic()
            said = make(clone, "demo", environment)
            taken = time.monotonic() - began
    finally:
        make(clone, "down", environment)
    left_over = running_from(clone)
    if left_over:
        raise RuntimeError(f"make down left {len(left_over)} processes of the clone: {left_over}")
    phases = phases_of(said)
    if "total" in phases:
        phases = {"install": round(taken - phases["total"], 1)} | phases
    return taken, phases


def make_clone(clone: Path) -> None:
    """What is committed, by git; then what differs from it in the checkout."""
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(clone)], check=True)
    listed = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--modified", "--others", "--deleted", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in sorted({name for name in names if name}):
        source, target = CHECKOUT / name, clone / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            target.unlink(missing_ok=True)


def clone_environment(clone: Path) -> dict[str, str]:
    """A newcomer's environment, with free ports and a home inside the clone."""
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_INDEX_PREFIXES)
    }
    ports = {f"HEADGATE_{part}_PORT": str(free_port()) for part in ("REDIS", "AIRFLOW", "RANKING")}
    return kept | ports | {"HEADGATE_HOME": str(clone / ".headgate")}


def make(clone: Path, target: str, environment: dict[str, str]) -> str:
    """Run a target; its notes go where ours do. Returns its stdout; raises CalledProcessError."""
    command = ["make", "-C", str(clone), target]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def phases_of(stdout: str) -> dict[str, float]:
    """The seconds of each phase from the demo's result, the last JSON object of its stdout."""
    lines = [line for line in stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"make demo printed no result:\n{stdout[-2000:]}")
    result = json.loads(lines[-1])
    phases = dict(result["seconds"])
    tasks = {f"task_{task}": seconds for task, seconds in result.get("task_seconds", {}).items()}
    return {name: round(float(seconds), 2) for name, seconds in (phases | tasks).items()}


def running_from(clone: Path) -> list[str]:
    """Processes that work in the clone or were started by a program or with a path of it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if any(str(clone) in text for text in (process.cwd(), *process.cmdline())):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


if __name__ == "__main__":
    main()
