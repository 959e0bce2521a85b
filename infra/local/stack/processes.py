"""processes: starting, knowing again and stopping a component with everything it made, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.contracts.errors import OperatorError

MARK = "HEADGATE_STACK_OF"
"""In the environment of every process of a stack, inherited by what it starts: whose it is, as `<home>#<component>`."""

_CREATED_TOLERANCE_S = 2.0
"""Two looks at a process's start differ by the clock's corrections; a process number is not used again this soon."""

_TAIL_LINES = 15
_LOG_KEPT_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a started process. `created_s` tells it from a later one with the same number."""

    pid: int
    created_s: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Launch:
    """How a component is started. fingerprint: of all that shapes it; where it has changed, a running one is out of date."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    fingerprint: str


class ProcessHouse:
    """The processes of one home. Records lie in <home>/run, logs in <home>/log."""

    def __init__(self, home: Path) -> None:
        """home: absolute."""
        self.home = home
        self._run = home / "run"

    def log(self, name: str) -> Path:
        """A component's log."""
        return self.home / "log" / f"{name}.log"

    def log_tail(self, name: str) -> str:
        """The last lines of a component's log."""
        path = self.log(name)
        if not path.exists():
            return f"{path} is not there"
        lines = path.read_bytes()[-20_000:].decode(errors="replace").splitlines()
        return "\n".join([f"{path} ends with:", *(f"  {line}" for line in lines[-_TAIL_LINES:])])

    def start(self, name: str, launch: Launch) -> Record:
        """Start a component in a session of its own, so that the keyboard's Ctrl-C is for whoever started it."""
        log = self.log(name)
        for folder in (self._run, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_KEPT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as sink:
            sink.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(launch.command)}\n".encode())
            sink.flush()
            process = subprocess.Popen(
                list(launch.command),
                cwd=launch.folder,
                env={**launch.environment, MARK: self._mark(name)},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                preexec_fn=_default_signals,
            )
        record = Record(process.pid, psutil.Process(process.pid).create_time(), launch.fingerprint)
        self._path(name).write_text(json.dumps(asdict(record)) + "\n")
        return record

    def running(self, name: str) -> Record | None:
        """The component's record, where its process is alive and is the one that was started."""
        record = self._read(name)
        return record if record is not None and _process_of(record) is not None else None

    def started(self, name: str) -> bool:
        """Whether a record is there: it was started and never stopped, alive or not."""
        return self._path(name).exists()

    def family(self, name: str) -> list[psutil.Process]:
        """Every living process that the component made, itself first where it lives.

        By three signs, for each has a gap: the tree (lost when a parent dies), the session (a job may open its own), and the
        mark in the environment (some programs write over it when they rename themselves).
        """
        record, mark = self._read(name), self._mark(name)
        main = _process_of(record) if record is not None else None
        found = {main.pid: main, **{child.pid: child for child in _children(main)}} if main is not None else {}
        session = record.pid if record is not None and (main is not None or not psutil.pid_exists(record.pid)) else None
        mine = _self_and_parents()
        for process in psutil.process_iter():
            if process.pid not in found and process.pid not in mine and _belongs(process, session=session, mark=mark):
                found[process.pid] = process
                found.update({child.pid: child for child in _children(process)})
        return [process for process in found.values() if _alive(process)]

    def stop(self, name: str, *, how: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> int:
        """Ask the component to end, then end whatever is left of it. Returns how many processes there were.

        Raises OperatorError where one of them outlives even SIGKILL.
        """
        family = self.family(name)
        count = len(family)
        record = self._read(name)
        main = _process_of(record) if record is not None else None
        if main is not None:
            _signal([main], how)
            psutil.wait_procs([main], timeout=grace_s)
        for number, wait_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0), (signal.SIGKILL, 5.0)):
            left = [*self.family(name), *(process for process in family if _alive(process))]
            if not left:
                break
            _signal(left, number)
            psutil.wait_procs(left, timeout=wait_s)
        left = self.family(name)
        if left:
            text = ", ".join(f"{process.pid} ({_name(process)})" for process in left)
            raise OperatorError(
                f"Processes of {name} do not end: {text}.", mend="Look at them with ps; then: make down"
            )
        self._path(name).unlink(missing_ok=True)
        return count

    def names(self) -> list[str]:
        """Components with a record, or with a living process that bears this home's mark."""
        recorded = {path.stem for path in self._run.glob("*.json")}
        prefix = f"{self.home}#"
        mine = _self_and_parents()
        marks = (_environment(process).get(MARK, "") for process in psutil.process_iter() if process.pid not in mine)
        return sorted(recorded | {mark.removeprefix(prefix) for mark in marks if mark.startswith(prefix)})

    def _mark(self, name: str) -> str:
        return f"{self.home}#{name}"

    def _path(self, name: str) -> Path:
        return self._run / f"{name}.json"

    def _read(self, name: str) -> Record | None:
        try:
            fields = json.loads(self._path(name).read_text())
            record = Record(int(fields["pid"]), float(fields["created_s"]), str(fields["fingerprint"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none, or torn by a power cut: its processes still bear the mark
        return record if record.created_s >= psutil.boot_time() - _CREATED_TOLERANCE_S else None


def _default_signals() -> None:
    """A shell starts background jobs with SIGINT ignored, and that is inherited; Airflow is stopped by it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _process_of(record: Record) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.created_s) <= _CREATED_TOLERANCE_S and _alive(process):
            return process
    return None


def _alive(process: psutil.Process) -> bool:
    """A zombie is over: it only waits for its parent to notice."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _belongs(process: psutil.Process, *, session: int | None, mark: str) -> bool:
    if session is not None:
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == session:
                return True
    return _environment(process).get(MARK) == mark


def _environment(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _self_and_parents() -> set[int]:
    me = psutil.Process()
    return {me.pid, *(parent.pid for parent in me.parents())}


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:60] or process.name()
    return "?"
