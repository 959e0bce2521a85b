"""report: the one format that benchmarks write, and the watch over processes that disturb them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
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
    """One benchmark's figures: `figures` are promises of an issue, `controls` what they are compared with."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    controls: dict[str, float] = field(default_factory=dict)
    foreign_cpu_cores: float = 0.0

    @property
    def valid(self) -> bool:
        """Whether the machine was quiet enough in every watched part."""
        return self.foreign_cpu_cores <= FOREIGN_LIMIT_CORES

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure how much CPU processes outside the benchmark used meanwhile; the worst watched part counts."""
        watch = _ForeignCpu()
        yield
        self.foreign_cpu_cores = max(self.foreign_cpu_cores, round(watch.cores(), 3))

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
            "valid": foreign <= FOREIGN_LIMIT_CORES,
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
    """CPU time of all processes but this one and its descendants, from the making of this object on."""

    def __init__(self) -> None:
        self._mine = {os.getpid()}
        self._started = time.monotonic()
        self._before = self._times()

    def cores(self) -> float:
        """Average cores that foreign processes used."""
        elapsed = max(time.monotonic() - self._started, 1e-3)
        used = 0.0
        for key, spent in self._times().items():
            used += spent - self._before.get(key, 0.0)
        return max(used, 0.0) / elapsed

    def _times(self) -> dict[tuple[int, float], float]:
        """CPU seconds by process (id and start time). A child once seen stays one, also when its parent has gone."""
        self._mine |= {child.pid for child in psutil.Process().children(recursive=True)}
        times = {}
        for process in psutil.process_iter():
            try:
                if process.pid in self._mine:
                    continue
                cpu = process.cpu_times()
                times[(process.pid, process.create_time())] = cpu.user + cpu.system
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # ended while we looked, or is not ours to see
        return times
