"""job: the one operator of these DAGs: it runs `python -m module ...` as a process of its own and reports what it said."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from dags.process import JobProcess
from infra.contracts import errors

CHECKOUT = Path(__file__).resolve().parents[1]

_TAIL_LINES = 8


class JobOperator(BaseOperator):
    """Runs one headgate command line.

    module: as in `python -m module`; never a shell, so no value can become a second command.
    args: words passed as they are.
    options: flag -> value, passed as `--flag=value`; one whose rendered value is empty is left out, so that the job's own
        setting counts.
    flags: flag -> value, passed as `--flag` where the rendered value is `True`, else left out.
    env: variables added to the task's environment; empty ones are left out likewise.
    needed: flag -> what to tell the user when that option is empty.
    on_failure: `skip` marks the task skipped instead of failed, for work that the run does not hang on.

    The last JSON object on the job's stdout becomes the task's XCom. The job's own `error:` line becomes the task's error; it is
    retried only where a retry can mend it, so not where the operator or the caller must act.
    """

    template_fields: Sequence[str] = ("args", "options", "flags", "env")
    ui_color = "#e8f1ec"

    def __init__(
        self,
        *,
        module: str,
        args: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        needed: Mapping[str, str] | None = None,
        on_failure: Literal["fail", "skip"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.module = module
        self.args = list(args)
        self.options = dict(options or {})
        self.flags = dict(flags or {})
        self.env = dict(env or {})
        self.needed = dict(needed or {})
        self.on_failure = on_failure
        self._process: JobProcess | None = None

    def execute(self, context: Context) -> dict[str, object] | None:
        """Run the job to its end. Returns its last JSON object."""
        return self.run_job()

    def run_job(self) -> dict[str, object] | None:
        """The same for a sensor, which does it again and again."""
        for flag, mend in self.needed.items():
            if not _given(self.options.get(flag)):
                raise AirflowFailException(mend)
        self.log.info("$ %s", self.shell_line)
        started = time.monotonic()
        code, result, error, tail = self._run()
        self.log.info("exit code %d after %.1f s", code, time.monotonic() - started)
        if code != 0:
            self._fail(error or f"{self.module} ended with exit code {code}:\n" + "\n".join(tail))
        return result

    @property
    def command(self) -> list[str]:
        """The words of the command line."""
        options = [f"{flag}={value}" for flag, value in self.options.items() if _given(value)]
        flags = [flag for flag, value in self.flags.items() if str(value) == "True"]
        return [sys.executable, "-m", self.module, *self.args, *flags, *options]

    @property
    def variables(self) -> dict[str, str]:
        """What the job's environment has beside the task's own."""
        return {name: str(value) for name, value in self.env.items() if _given(value)}

    @property
    def shell_line(self) -> str:
        """The same as one types it into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join([*assignments, shlex.join(["python", *self.command[1:]])])

    def on_kill(self) -> None:
        """Stop the job and every process it started (Spark's JVM among them)."""
        if self._process is not None:
            self.log.warning("stopping the job's processes (session %d)", self._process.pid)
            self._process.stop()

    def _run(self) -> tuple[int, dict[str, object] | None, str, deque[str]]:
        """(exit code, last JSON object, last `error:` line, last lines)."""
        self._process = process = JobProcess(self.command, env=self.variables, cwd=CHECKOUT)
        result: dict[str, object] | None = None
        error, tail = "", deque[str](maxlen=_TAIL_LINES)
        try:
            for stream, text in process.lines():
                if stream == "stdout":
                    result = _json_object(text) or result
                if text.startswith("error:"):
                    error = text
                tail.append(text)
                self.log.info("%s", text)
            return process.wait(), result, error, tail
        finally:
            process.stop()  # what outlived the job has nothing left to do
            self._process = None

    def _fail(self, text: str) -> None:
        if self.on_failure == "skip":
            raise AirflowSkipException(f"{text} (the run does not hang on it)")
        if text.startswith("error:") and not may_mend_itself(text):
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


def _json_object(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
