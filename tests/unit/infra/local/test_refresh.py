"""A run through Airflow's REST API, against a server that says what Airflow says: followed, told, and explained when it fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.catalog.applications.ranking import RANKING
from infra.contracts.errors import DependencyUnavailable, InvalidRequest, OperatorError
from infra.local.airflow_client import PASSWORDS_FILE, AirflowClient
from infra.local.refresh import refresh_snapshot

DAG = "snapshot_refresh_ranking"


@dataclass
class FakeAirflow:
    """Answers by path; a list is answered one after the other, the last one again and again."""

    url: str = ""
    answers: dict[str, list[tuple[int, object]]] = field(default_factory=dict)
    posted: dict[str, object] = field(default_factory=dict)

    def says(self, path: str, *answers: object, code: int = 200) -> None:
        self.answers[path] = [(code, answer) for answer in answers]

    def answer(self, path: str) -> tuple[int, object]:
        found = self.answers.get(path, [(404, {"detail": "none"})])
        return found.pop(0) if len(found) > 1 else found[0]


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            path = self.path.partition("?")[0]
            if length:
                fake.posted[path] = json.loads(self.rfile.read(length))
            code, answer = fake.answer(path)
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fake.says("/auth/token", {"access_token": "t"}, code=201)
    fake.says(f"/api/v2/dags/{DAG}", {})
    fake.says(f"/api/v2/dags/{DAG}/tasks", {"tasks": [{"task_id": "train"}, {"task_id": "flip"}]})
    fake.says(f"/api/v2/dags/{DAG}/dagRuns", {"dag_runs": []}, {"dag_run_id": "r1"})
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(airflow: FakeAirflow, tmp_path: Path) -> Iterator[AirflowClient]:
    (tmp_path / PASSWORDS_FILE).write_text('{"admin": "secret"}')
    with AirflowClient(url=airflow.url, home=tmp_path) as made:
        yield made


def tasks(train: str, flip: str) -> dict[str, object]:
    row = {"try_number": 1, "duration": 2.0, "end_date": "2024-06-01"}
    rows = [{"task_id": "train", "state": train, **row}, {"task_id": "flip", "state": flip, **row}]
    return {"task_instances": rows}


def test_a_run_is_followed_to_its_version(
    airflow: FakeAirflow, client: AirflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"/api/v2/dags/{DAG}/dagRuns/r1"
    airflow.says(run, {"state": "running"}, {"state": "success"})
    airflow.says(f"{run}/taskInstances", tasks("running", "None"), tasks("success", "success"))
    airflow.says(f"{run}/taskInstances/flip/xcomEntries/return_value", {"value": {"version": "v7"}})
    done = refresh_snapshot(client, RANKING.name, conf={"source": "/data"})
    assert (done.version, dict(done.task_seconds)) == ("v7", {"train": 2.0, "flip": 2.0})
    assert airflow.posted[f"/api/v2/dags/{DAG}/dagRuns"] == {"conf": {"source": "/data"}, "logical_date": None}
    assert "(2 of 2)" in capsys.readouterr().err


def test_a_run_whose_snapshot_was_not_approved_is_no_success(airflow: FakeAirflow, client: AirflowClient) -> None:
    run = f"/api/v2/dags/{DAG}/dagRuns/r1"
    airflow.says(run, {"state": "success"})
    airflow.says(f"{run}/taskInstances", tasks("success", "skipped"))
    with pytest.raises(
        OperatorError, match=r"its snapshot was not approved, or its canary was not decided\. .*: make history"
    ):
        refresh_snapshot(client, RANKING.name, conf={})


def test_a_failed_run_names_the_task_its_error_and_its_log(
    airflow: FakeAirflow, client: AirflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"/api/v2/dags/{DAG}/dagRuns/r1"
    airflow.says(run, {"state": "failed"})
    airflow.says(f"{run}/taskInstances", tasks("failed", "upstream_failed"))
    said = [{"event": "reading"}, {"event": "error: DataRefused: no labels. Use more data."}, {"event": "exit code 1"}]
    airflow.says(f"{run}/taskInstances/train/logs/1", {"content": said})
    with pytest.raises(OperatorError, match=r"Task train of .* failed: DataRefused: no labels.*attempt=1\.log"):
        refresh_snapshot(client, RANKING.name, conf={})
    assert "  exit code 1" in capsys.readouterr().err


def test_a_field_that_the_form_refuses_is_the_callers_error(airflow: FakeAirflow, client: AirflowClient) -> None:
    airflow.answers[f"/api/v2/dags/{DAG}/dagRuns"] = [(200, {"dag_runs": []}), (400, {"detail": "format: not one of"})]
    with pytest.raises(InvalidRequest, match="format: not one of"):
        refresh_snapshot(client, RANKING.name, conf={"format": "xml"})


def test_a_wrong_password_and_a_stack_that_was_never_started_are_told(
    airflow: FakeAirflow, client: AirflowClient, tmp_path: Path
) -> None:
    airflow.says("/auth/token", {"detail": "no"}, code=401)
    with pytest.raises(OperatorError, match="does not accept the login"):
        client.unpause(DAG)
    (tmp_path / PASSWORDS_FILE).unlink()
    with pytest.raises(DependencyUnavailable, match=r"has not been started from this checkout.*Run: make up"):
        client.unpause(DAG)
