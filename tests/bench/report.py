"""report: the one format that benchmarks write, and the watch over processes that disturb them."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psutil

from infra.config.settings import CHECKOUT

FOREIGN_LIMIT_CORES = 0.1
"""Above this, other processes took part in the measurement: the figures are not published, the run is repeated."""

BENCH_FOLDER = CHECKOUT / ".bench"

ProcessKey = tuple[int, float]
"""A process's id and start time: an id alone may come again."""

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    cpus: int
    model: str
    mem_gb: float

    @classmethod
    def here(cls) -> Self:
        """This machine."""
        model = platform.processor() or platform.machine()
        cpuinfo = Path("/proc/cpuinfo")
        if cpuinfo.exists():
            names = [
                line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
            ]
            model = names[0] if names else model
        return cls(os.cpu_count() or 1, model, round(psutil.virtual_memory().total / 2**30, 1))


@dataclass(slots=True)
class Report:
    """One benchmark's figures: `figures` are promises of an issue, `controls` what they are compared with.

    timed: whether any of them is a time or a speed; what is none stays true on a busy machine.
    """

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    controls: dict[str, float] = field(default_factory=dict)
    foreign_cpu_cores: float = 0.0
    timed: bool = True

    @property
    def valid(self) -> bool:
        """Whether the machine was quiet enough in every watched part."""
        return self._holds(self.foreign_cpu_cores)

    def _holds(self, foreign_cpu_cores: float) -> bool:
        return not self.timed or foreign_cpu_cores <= FOREIGN_LIMIT_CORES

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure how much CPU processes outside the benchmark used meanwhile; the worst watched part counts."""
        watch = _ForeignCpu(root=os.getpid())
        try:
            yield
        finally:
            cores = watch.cores()
        self.foreign_cpu_cores = max(self.foreign_cpu_cores, round(cores, 3))

    def write(self, *, folder: Path = BENCH_FOLDER) -> Path:
        """Write {folder}/{name}.json.

        Several programs may fill one file: figures of the same commit that this run did not measure are kept, and the file is
        valid only if each of its runs was.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        at = commit()
        earlier = json.loads(path.read_text()) if path.exists() else {}
        kept = (
            earlier if earlier.get("commit") == at and not set(earlier.get("figures", {})) <= set(self.figures) else {}
        )
        foreign = max(self.foreign_cpu_cores, float(kept.get("foreign_cpu_cores", 0.0)))
        fields = {
            "name": self.name,
            "commit": at,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(Machine.here()),
            "foreign_cpu_cores": foreign,
            "valid": self._holds(foreign),
            "figures": kept.get("figures", {}) | self.figures,
            "controls": kept.get("controls", {}) | self.controls,
        }
        path.write_text(json.dumps(fields, indent=1) + "\n")
        return path


def commit() -> str:
    """The checkout's commit, with `+` where files differ from it; `unknown` outside a repository."""
    git = ["git", "-C", str(CHECKOUT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


class _ForeignCpu:
    """CPU time of all processes but `root` and what it started, from the making of this object until `cores`.

    The process table is looked at every half second: a child's child that outlives its parent stays the benchmark's own, and a
    foreign process that ends meanwhile is counted as far as it was seen.
    """

    def __init__(self, *, root: int) -> None:
        self.mine = {(root, psutil.Process(root).create_time())}
        self._before: dict[ProcessKey, float] = {}
        self._after: dict[ProcessKey, float] = {}
        self._started = time.monotonic()
        self.look(starting=True)
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="foreign cpu", daemon=True)
        self._watcher.start()

    def cores(self) -> float:
        """Average cores that foreign processes used."""
        self._done.set()
        self._watcher.join()
        self.look()
        elapsed = max(time.monotonic() - self._started, 1e-3)
        return sum(self.used().values()) / elapsed

    def used(self) -> dict[ProcessKey, float]:
        """CPU seconds of each foreign process so far."""
        return {key: max(spent - self._before[key], 0.0) for key, spent in self._after.items()}

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_EVERY_S):
            self.look()

    def look(self, *, starting: bool = False) -> None:
        """One pass over the processes, parents before their children. One that is new since the start began at zero."""
        seen = []
        for process in psutil.process_iter():
            # suppressed: it ended while we looked, or is not ours to see
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                cpu = process.cpu_times()
                seen.append((process.create_time(), process.pid, process.ppid(), cpu.user + cpu.system))
        living = {pid: (pid, began) for began, pid, _, _ in seen}
        for began, pid, parent, spent in sorted(seen):
            key = (pid, began)
            if living.get(parent) in self.mine:
                self.mine.add(key)
            if key not in self.mine:
                self._before.setdefault(key, spent if starting else 0.0)
                self._after[key] = spent
