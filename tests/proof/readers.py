"""readers: several reading processes at once, started, watched and stopped together."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.config.settings import CHECKOUT
from tests.proof.reader import Found

_PATIENCE_S = 120.0


@dataclass
class Readers:
    """What to read, and how."""

    folder: Path
    store: str
    redis_url: str
    users: int
    processes: int = 2
    lease_s: float = 10.0
    per_s: float = 0.0
    rereads: bool = False

    @contextmanager
    def reading(self) -> Iterator[Readers]:
        """They read from the block's begin to its end; after it `found` is all they saw."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        started = [subprocess.Popen(self._command(path), cwd=CHECKOUT, stdin=subprocess.PIPE) for path in self._paths]
        try:
            self._wait(started, lambda found: found.requests > 0)
            yield self
            for process in started:
                process.communicate(timeout=_PATIENCE_S)
            self._wait(started, lambda found: found.ended)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    @property
    def found(self) -> list[Found]:
        """What each of them saw so far."""
        return [Found.read(path) for path in self._paths]

    @property
    def _paths(self) -> list[Path]:
        return [self.folder / f"reader-{number}.json" for number in range(self.processes)]

    def _command(self, out: Path) -> list[str]:
        options = {
            "store": self.store,
            "redis": self.redis_url,
            "out": out,
            "users": self.users,
            "lease-s": self.lease_s,
            "per-s": self.per_s,
        }
        words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [sys.executable, "-m", "tests.proof.reader", *words, *(["--rereads"] if self.rereads else [])]

    def _wait(self, started: list[subprocess.Popen[bytes]], holds: Callable[[Found], bool]) -> None:
        ends_s = time.monotonic() + _PATIENCE_S
        while not all(map(holds, self.found)):
            if any(process.poll() not in (None, 0) for process in started) or time.monotonic() > ends_s:
                raise RuntimeError("a reader ended by itself or never began")
            time.sleep(0.02)
