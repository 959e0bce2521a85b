"""job: the one operator of these DAGs: it runs `python -m module ...` as a process of its own and reports what it said."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from infra.contracts import errors

CHECKOUT = Path(__file__).resolve().parents[1]

GRACE_S = 3.0
"""From SIGTERM to SIGKILL. Airflow itself kills the task 5 s after it asked it to stop."""

_TAIL_LINES = 8
_CHUNK_BYTES = 1 << 16


class JobOperator(BaseOperator):
    """Runs one headgate command line.

    module: as in `python -m module`; never a shell, so no value can become a second command.
    args: words passed as they are.
    options: flag -> value, passed as `--flag=value`; one whose rendered value is empty is left out, so that the job's own
        setting counts.
    env: variables added to the task's environment; empty ones are left out likewise.
    needed: flag -> what to tell the user when that option is empty.
    on_failure: `skip` marks the task skipped instead of failed, for work that the run does not hang on.

    The last JSON object on the job's stdout becomes the task's XCom. The job's own `error:` line becomes the task's error; it is
    retried only where a retry can mend it, so not where the operator or the caller must act.
    """

    template_fields: Sequence[str] = ("args", "options", "env")
    ui_color = "#e8f1ec"

    def __init__(
        self,
        *,
        module: str,
        args: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        needed: Mapping[str, str] | None = None,
        on_failure: Literal["fail", "skip"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.module = module
        self.args = list(args)
        self.options = dict(options or {})
        self.env = dict(env or {})
        self.needed = dict(needed or {})
        self.on_failure = on_failure
        self._process: subprocess.Popen[bytes] | None = None

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Run the job to its end. Returns its last JSON object."""
        for flag, mend in self.needed.items():
            if not _given(self.options.get(flag)):
                raise AirflowFailException(mend)
        self.log.info("$ python %s", " ".join(self.command[1:]))
        started = time.monotonic()
        result, said = self._run()
        code = self._process.returncode if self._process else -1
        self.log.info("exit code %d after %.1f s", code, time.monotonic() - started)
        if code == 0:
            return result
        self._fail(said, code)
        return None

    @property
    def command(self) -> list[str]:
        """The words of the command line."""
        options = [f"{flag}={value}" for flag, value in self.options.items() if _given(value)]
        return [sys.executable, "-m", self.module, *self.args, *options]

    def on_kill(self) -> None:
        """Stop the job and every process it started (Spark's JVM among them)."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.log.warning("stopping the job's processes (group %d)", process.pid)
        _signal_group(process.pid, signal.SIGTERM)
        ends = time.monotonic() + GRACE_S
        while process.poll() is None and time.monotonic() < ends:
            time.sleep(0.05)
        _signal_group(process.pid, signal.SIGKILL)

    def _run(self) -> tuple[dict[str, Any] | None, list[str]]:
        given = {name: str(value) for name, value in self.env.items() if _given(value)}
        self._process = process = subprocess.Popen(
            self.command,
            cwd=CHECKOUT,
            env={**os.environ, **given, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent(os.getpid()),
        )
        result: dict[str, Any] | None = None
        said: list[str] = []
        try:
            for stream, line in _lines(process):
                found = _json_object(line) if stream == "stdout" else None
                result = found or result
                said.append(line)
                del said[:-200]
                self.log.info("%s", line)
            process.wait()
        finally:
            self.on_kill()
            _signal_group(process.pid, signal.SIGKILL)  # what outlived the job has nothing left to do
        return result, said

    def _fail(self, said: list[str], code: int) -> None:
        error = next((line for line in reversed(said) if line.startswith("error:")), None)
        text = error or f"{self.module} ended with exit code {code}:\n" + "\n".join(said[-_TAIL_LINES:])
        if self.on_failure == "skip":
            raise AirflowSkipException(f"{text} (the run does not hang on it)")
        if error is not None and not may_mend_itself(error):
            raise AirflowFailException(text)
        raise AirflowException(text)


def may_mend_itself(error: str) -> bool:
    """Whether a retry can help: not where an `error: Class: ...` names an error that somebody must act on."""
    name = error.removeprefix("error:").strip().partition(":")[0]
    kind = getattr(errors, name, None)
    final = (errors.CallerError, errors.OperatorError, errors.ContractViolation)
    return not (isinstance(kind, type) and issubclass(kind, final))


def _given(value: object) -> bool:
    return value is not None and str(value) not in {"", "None"}


def _json_object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _lines(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, str]]:
    """Lines of stdout and stderr as they come. Ends when the job has ended, also where a process it left holds a pipe open."""
    with selectors.DefaultSelector() as selector:
        held: dict[str, bytes] = {}
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, name)
                held[name] = b""
        while selector.get_map():
            ready = selector.select(timeout=0.2)
            if not ready and process.poll() is not None:
                break
            for key, _ in ready:
                stream, name = _file(key.fileobj), key.data
                chunk = os.read(stream.fileno(), _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(stream)
                    continue
                *whole, held[name] = (held[name] + chunk).split(b"\n")
                for line in whole:
                    yield name, line.decode(errors="replace").rstrip("\r")
        for name, rest in held.items():
            if rest:
                yield name, rest.decode(errors="replace")


def _file(fileobj: Any) -> IO[bytes]:
    return fileobj  # type: ignore[no-any-return]


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _end_with_parent(parent: int) -> Any:
    """For the new process: on Linux the kernel stops it when its parent dies, even by SIGKILL. Elsewhere nothing."""
    if sys.platform != "linux":
        return None
    libc, set_parent_death_signal = ctypes.CDLL(None), 1

    def arrange() -> None:
        libc.prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
