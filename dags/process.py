"""process: a job as a session of processes: what it says line by line, how it ends, and that nothing of it outlives it."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

GRACE_S = 3.0
"""From SIGTERM to SIGKILL. Airflow itself kills the task 5 s after it asked it to stop."""

_CHUNK_BYTES = 1 << 16
_LINE_BYTES = 1 << 20
_LOUD = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""They would make a job draw bars and colours into a log."""


Stream = Literal["stdout", "stderr"]


class Line(NamedTuple):
    """One line of output, without its end."""

    stream: Stream
    text: str


class JobProcess:
    """A started command. It leads a session of its own, so that `stop` finds all that it started, other process groups too."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """env: variables added to this process's own."""
        inherited = {name: value for name, value in os.environ.items() if name not in _LOUD}
        self._process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**inherited, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent(os.getpid()),
        )

    @property
    def pid(self) -> int:
        """Of the process and of its session."""
        return self._process.pid

    def lines(self) -> Iterator[Line]:
        """Its output as it comes. Ends when the job has ended, also where a process it left holds a pipe open."""
        held: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        with selectors.DefaultSelector() as selector:
            for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, name)
            while selector.get_map():
                ready = selector.select(timeout=0.2)
                if not ready and self._process.poll() is not None:
                    break
                for key, _ in ready:
                    chunk = os.read(key.fd, _CHUNK_BYTES)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    *whole, rest = (held[key.data] + chunk).split(b"\n")
                    if len(rest) > _LINE_BYTES:
                        whole, rest = [*whole, rest], b""
                    held[key.data] = rest
                    yield from (_line(key.data, line) for line in whole)
        yield from (_line(name, rest) for name, rest in held.items() if rest)

    def wait(self) -> int:
        """Its exit code, once it has ended; negative where a signal ended it."""
        return self._process.wait()

    def stop(self) -> None:
        """End whatever of the session still runs: asked first, killed after GRACE_S. Fine where nothing does."""
        ends = time.monotonic() + GRACE_S
        self._signal(signal.SIGTERM)
        while self._members() and time.monotonic() < ends:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._members():
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # it has just ended

    def _members(self) -> list[int]:
        """Every process of the session that runs; one that waits to be reaped does not."""
        self._process.poll()
        return [pid for pid in psutil.pids() if _runs_in(pid, self.pid)]


def _runs_in(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False


def _line(stream: Stream, line: bytes) -> Line:
    text = line.decode(errors="replace").rstrip("\r")
    return Line(stream, text.rpartition("\r")[2])  # of a line that was drawn again and again the last state


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """For the new process: on Linux the kernel stops it when its parent dies, even by SIGKILL. Elsewhere nothing."""
    if sys.platform != "linux":
        return None
    libc, set_parent_death_signal = ctypes.CDLL(None), 1

    def arrange() -> None:
        libc.prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
