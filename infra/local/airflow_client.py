"""airflow_client: Airflow by its REST API: trigger a DAG, follow its run task by task, and read why a task failed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

import httpx

from infra.config.settings import settings
from infra.contracts.errors import DependencyUnavailable, InvalidRequest, OperatorError

PASSWORDS_FILE = "simple_auth_manager_passwords.json.generated"
"""In AIRFLOW_HOME; `airflow standalone` writes it, readable by its owner only."""

ENDED = frozenset({"success", "failed"})

_PATIENCE_S = 30.0
"""How long the server may be away while a run is followed: it restarts its workers now and then."""


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A task of a followed run is in another state than at the last look."""

    task_id: str
    state: str
    try_number: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Why a run failed: the task, what it said, and the end of its log."""

    task_id: str
    error: str
    log_tail: tuple[str, ...]
    log_path: str


class AirflowClient:
    """One logged-in session. Use it as a context manager."""

    def __init__(self, *, url: str, home: Path) -> None:
        """url: where Airflow listens; home: its AIRFLOW_HOME, which has the generated password."""
        self.url = url.rstrip("/")
        self._home = home
        self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(20.0, connect=3.0), trust_env=False)

    @classmethod
    def local(cls) -> Self:
        """The client of this checkout's own Airflow."""
        chosen = settings()
        return cls(url=f"http://127.0.0.1:{chosen.airflow_port}", home=chosen.home / "airflow")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # -- what a run needs

    def wait_for_dag(self, dag_id: str, *, timeout_s: float = 60.0) -> None:
        """Return once Airflow has read the DAG; raises OperatorError with the import error where there is one."""
        ends = time.monotonic() + timeout_s
        while True:
            found = self._send("GET", f"/api/v2/dags/{dag_id}", missing_is_fine=True)
            if found is not None:
                return
            if time.monotonic() > ends:
                raise OperatorError(
                    f"Airflow at {self.url} has no DAG {dag_id} after {timeout_s:.0f} s.{self._import_errors()}",
                    mend=f"Look at {self._home.parent / 'log'}, then run: make down && make up",
                )
            time.sleep(0.5)

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start."""
        self._send("PATCH", f"/api/v2/dags/{dag_id}", body={"is_paused": False}, query={"update_mask": "is_paused"})

    def trigger(self, dag_id: str, *, conf: Mapping[str, object]) -> str:
        """Start a run, as the form does. Returns its id. Raises InvalidRequest where the server refuses a field."""
        body = {"conf": dict(conf), "logical_date": None}
        run = self._send("POST", f"/api/v2/dags/{dag_id}/dagRuns", body=body)
        return str(_field(run, "dag_run_id"))

    def run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(_field(self._send("GET", self._run(dag_id, run_id)), "state"))

    def running(self, dag_id: str) -> list[str]:
        """The ids of the DAG's runs that have not ended, oldest first."""
        query: dict[str, str | list[str]] = {"state": ["running", "queued"], "order_by": "run_after"}
        runs = _rows(self._send("GET", f"/api/v2/dags/{dag_id}/dagRuns", query=query), "dag_runs")
        return [str(run["dag_run_id"]) for run in runs]

    def task_ids(self, dag_id: str) -> list[str]:
        """The DAG's tasks."""
        return [str(row["task_id"]) for row in _rows(self._send("GET", f"/api/v2/dags/{dag_id}/tasks"), "tasks")]

    def follow(self, dag_id: str, run_id: str, *, poll_s: float = 0.5) -> Iterator[TaskChange]:
        """Every change of a task's state, as it is seen, until the run has ended."""
        seen: dict[str, tuple[str, int]] = {}
        while True:
            ended = self.run_state(dag_id, run_id) in ENDED
            for row in self._tasks(dag_id, run_id):
                task_id, state = str(row["task_id"]), str(row["state"] or "waiting")
                now = state, int(str(row["try_number"]))
                if seen.get(task_id, ("waiting", 0))[0] != state or (state == "running" and seen.get(task_id) != now):
                    duration = row.get("duration")
                    yield TaskChange(task_id, state, now[1], None if duration is None else float(str(duration)))
                seen[task_id] = now
            if ended:
                return
            time.sleep(poll_s)

    def result(self, dag_id: str, run_id: str, task_id: str) -> dict[str, object]:
        """The JSON object that a task's job printed last; empty where it printed none."""
        path = f"{self._run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        entry = self._send("GET", path, query={"deserialize": "true"}, missing_is_fine=True)
        value = _field(entry, "value") if entry is not None else None
        value = json.loads(value) if isinstance(value, str) else value
        return cast("dict[str, object]", value) if isinstance(value, dict) else {}

    def failure(self, dag_id: str, run_id: str) -> TaskFailure | None:
        """The first failed task of a run, and what it said."""
        failed = [row for row in self._tasks(dag_id, run_id) if row["state"] == "failed"]
        if not failed:
            return None
        row = min(failed, key=lambda one: str(one["end_date"]))
        task_id, number = str(row["task_id"]), int(str(row["try_number"]))
        lines = self.log(dag_id, run_id, task_id, try_number=number)
        error = next((line for line in reversed(lines) if line.startswith("error:")), "")
        raised = [line for line in lines if "Exception" in line]
        path = f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}/attempt={number}.log"
        return TaskFailure(
            task_id, error or (raised[-1] if raised else "no error line"), tuple(lines[-12:]), str(self.logs / path)
        )

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int) -> list[str]:
        """A task's log, line by line, without the times."""
        path = f"{self._run(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        answer = self._send("GET", path, query={"full_content": "true"}, missing_is_fine=True)
        lines = []
        for row in _rows(answer, "content") if answer is not None else []:
            lines += str(row.get("event", "")).splitlines()
            details = row.get("error_detail")
            for detail in details if isinstance(details, list) else []:
                lines.append(f"{detail.get('exc_type')}: {detail.get('exc_value')}")
        return lines

    @property
    def logs(self) -> Path:
        """Where the tasks' logs lie on this machine."""
        return self._home / "logs"

    def run_url(self, dag_id: str, run_id: str) -> str:
        """The run's page."""
        return f"{self.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}"

    # -- HTTP

    def _run(self, dag_id: str, run_id: str) -> str:
        return f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

    def _tasks(self, dag_id: str, run_id: str) -> list[dict[str, object]]:
        return _rows(self._send("GET", f"{self._run(dag_id, run_id)}/taskInstances"), "task_instances")

    def _import_errors(self) -> str:
        rows = _rows(self._send("GET", "/api/v2/importErrors"), "import_errors")
        found = [f" {row['filename']}: {str(row['stack_trace']).strip().splitlines()[-1]}." for row in rows]
        return "".join(found)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str | list[str]] | None = None,
        missing_is_fine: bool = False,
    ) -> object | None:
        """One call, logged in; reads are repeated for a while where the server is away, writes are not."""
        ends = time.monotonic() + (_PATIENCE_S if method == "GET" and "Authorization" in self._http.headers else 0.0)
        while True:
            try:
                if "Authorization" not in self._http.headers:
                    self._log_in()
                response = self._http.request(method, path, json=body, params=query)
                if response.status_code == httpx.codes.UNAUTHORIZED:  # the token's time is over
                    self._log_in()
                    response = self._http.request(method, path, json=body, params=query)
                if response.status_code < 500 or time.monotonic() > ends:
                    break
            except httpx.HTTPError as error:
                if time.monotonic() > ends:
                    raise self._away(str(error) or type(error).__name__) from error
            time.sleep(0.5)
        if response.status_code == httpx.codes.NOT_FOUND and missing_is_fine:
            return None
        if response.is_client_error:
            raise InvalidRequest(f"Airflow refused {method} {path}: {_detail(response)}")
        if response.is_error:
            raise self._away(f"HTTP {response.status_code}")
        return cast(object, response.json())

    def _log_in(self) -> None:
        self._http.headers.pop("Authorization", None)
        user, password = self.credentials()
        response = self._http.post("/auth/token", json={"username": user, "password": password})
        if response.status_code >= 500:
            raise self._away(f"HTTP {response.status_code}")
        if response.status_code != httpx.codes.CREATED:
            raise OperatorError(
                f"Airflow at {self.url} does not accept the login of {self._home / PASSWORDS_FILE} "
                f"(HTTP {response.status_code}).",
                mend="Another Airflow listens on this port, or the file is of an earlier one. Run: make down && make up",
            )
        self._http.headers["Authorization"] = f"Bearer {_field(response.json(), 'access_token')}"

    def credentials(self) -> tuple[str, str]:
        """User and password, as Airflow generated them at its first start."""
        path = self._home / PASSWORDS_FILE
        try:
            passwords = json.loads(path.read_text())
            user = "admin" if "admin" in passwords else next(iter(passwords))
            return user, str(passwords[user])
        except (OSError, ValueError, StopIteration) as error:
            raise DependencyUnavailable(
                f"Airflow has not been started from this checkout: {path} is not there.", mend="Run: make up"
            ) from error

    def _away(self, seen: str) -> DependencyUnavailable:
        return DependencyUnavailable(f"Airflow at {self.url} does not answer ({seen}).", mend="Run: make up")


def _field(answer: object, name: str) -> object:
    if not isinstance(answer, dict) or name not in answer:
        raise DependencyUnavailable(
            f"Airflow's answer has no field {name!r}.", mend="Is it Airflow 3.3? Run: make status"
        )
    return cast(object, answer[name])


def _rows(answer: object, name: str) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", _field(answer, name))


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json().get("detail", response.text)
    except (ValueError, AttributeError):
        detail = response.text
    return str(detail).partition("\n")[0][:500]
