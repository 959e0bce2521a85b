"""The stack: up starts what is missing, down leaves nothing, and what is wrong is said before anything starts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from infra.config.settings import Settings
from infra.contracts.errors import DependencyUnavailable, MissingTool, NotEnoughRoom, PortTaken
from infra.local import tools
from infra.local.class_archive import ClassArchive
from infra.local.stack.airflow import Airflow
from infra.local.stack.embedded_redis import EmbeddedRedis
from infra.local.stack.ports import HOST, is_free, listener
from infra.local.stack.processes import Launch
from infra.local.stack.stack import Stack
from tests.fixtures.redis_server import free_port

_SERVER = "import http.server as h, sys; h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.BaseHTTPRequestHandler).serve_forever()"


class FakePart:
    """A real process that listens, in the place of a real component."""

    port_setting = "HEADGATE_FAKE_PORT"
    ready_within_s = 20.0
    stop_signal = signal.SIGTERM
    grace_s = 5.0

    def __init__(self, name: str, folder: Path, *, code: str = _SERVER) -> None:
        self.name = self.title = name
        self.port = free_port()
        self.fingerprint = "f1"
        self.folder = folder
        self.code = code

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def launch(self, *, java_home: Path | None) -> Launch:
        command = [sys.executable, "-c", self.code, str(self.port)]
        return Launch(command, {"PATH": os.environ["PATH"]}, self.folder, self.fingerprint)

    def problem(self) -> str:
        return "starting" if is_free(self.port) else ""


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", redis_port=free_port(), redis_url=SecretStr(""))


@pytest.fixture
def stack(chosen: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setattr(tools, "find_java", lambda: Path("/java"))
    monkeypatch.setattr(tools, "find_redis", lambda: ["redis-server"])
    archive = ClassArchive(tools.tools_folder(chosen), java_home=Path("/java"))
    archive.path.parent.mkdir(parents=True)
    archive.path.touch()  # no Spark is started here
    made = Stack(chosen)
    made.parts = [FakePart("first", tmp_path), FakePart("second", tmp_path)]
    yield made
    made.down()


def pids(stack: Stack) -> list[int | None]:
    return [record.pid if (record := stack.house.running(part.name)) else None for part in stack.parts]


def test_up_returns_when_everything_answers_and_a_second_up_changes_nothing(stack: Stack) -> None:
    assert set(stack.up()) == {"first", "second"}
    before = pids(stack)
    assert None not in before and [row.state for row in stack.status()] == ["running", "running"]
    stack.up()
    assert pids(stack) == before


def test_down_leaves_nothing_and_is_content_where_nothing_runs(stack: Stack) -> None:
    stack.up()
    assert stack.down() == {"first": 1, "second": 1}
    assert stack.running() == [] and all(is_free(part.port or 0) for part in stack.parts)
    assert [row.state for row in stack.status()] == ["stopped", "stopped"]
    assert stack.down() == {}


def test_up_starts_again_what_died_and_leaves_the_rest(stack: Stack) -> None:
    stack.up()
    first, second = pids(stack)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while stack.house.running("first") is not None:
        pass
    assert [row.state for row in stack.status()] == ["died", "running"]
    stack.up()
    assert pids(stack)[0] not in (first, None) and pids(stack)[1] == second


def test_up_starts_anew_what_runs_with_other_settings(stack: Stack) -> None:
    stack.up()
    before = pids(stack)
    part = stack.parts[0]
    assert isinstance(part, FakePart)
    part.fingerprint = "f2"
    stack.up()
    assert pids(stack)[0] != before[0] and pids(stack)[1] == before[1]


def test_a_part_that_ends_while_it_starts_is_told_with_its_log_and_the_others_are_stopped(
    stack: Stack, tmp_path: Path
) -> None:
    stack.parts[1] = FakePart("second", tmp_path, code="raise SystemExit('the disk is on fire')")
    with pytest.raises(DependencyUnavailable, match=r"(?s)second ended while it started.*the disk is on fire"):
        stack.up()
    assert stack.running() == []


def test_ctrl_c_while_it_starts_leaves_nothing(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> str:
        assert None not in pids(stack)
        raise KeyboardInterrupt

    monkeypatch.setattr(stack.parts[1], "problem", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stack.up()
    assert stack.running() == []


def test_a_taken_port_is_named_with_its_owner_before_anything_starts(stack: Stack) -> None:
    with socket.create_server((HOST, stack.parts[1].port)):
        with pytest.raises(PortTaken, match=rf"second .*{os.getpid()}.*HEADGATE_FAKE_PORT"):
            stack.up()
        assert stack.running() == [] and not stack.house.log("first").exists()
        assert str(os.getpid()) in listener(stack.parts[1].port or 0)


@pytest.mark.parametrize("missing", ["find_java", "find_redis"])
def test_a_missing_tool_is_told_before_anything_starts(
    stack: Stack, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, missing, _raise(MissingTool("not there", mend="Install it.")))
    with pytest.raises(MissingTool, match="Install it"):
        stack.up()
    assert not stack.house.log("first").exists()


def test_a_full_disk_is_told_before_anything_starts(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(NotEnoughRoom, match=r"0\.0 GB free; wanted 2 GB.*HEADGATE_HOME"):
        stack.up()
    assert not stack.house.log("first").exists()


def test_a_home_that_names_a_redis_starts_none(tmp_path: Path) -> None:
    chosen = Settings(home=tmp_path, redis_url=SecretStr("redis://elsewhere:6379/0"))
    assert [part.name for part in Stack(chosen).parts] == ["airflow", "ranking", "nearline"]
    assert Stack(chosen).status()[0].state == "external"


def test_another_ranker_setting_restarts_airflow_and_not_redis(
    chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "find_redis", lambda: ["redis-server"])
    other = chosen.model_copy(update={"ranker_trees": chosen.ranker_trees + 1})
    redis = [EmbeddedRedis(each).launch(java_home=None).fingerprint for each in (chosen, other)]
    airflow = [Airflow(each).launch(java_home=None).fingerprint for each in (chosen, other)]
    assert redis[0] == redis[1] and airflow[0] != airflow[1]


def test_airflow_serves_on_loopback_only_and_asks_for_a_password(chosen: Settings) -> None:
    launch = Airflow(chosen).launch(java_home=Path("/java"))
    told = launch.environment
    assert told["AIRFLOW__API__HOST"] == HOST and told["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert told["JAVA_HOME"] == "/java"
    script = Path(told["PATH"].split(os.pathsep)[0], "airflow").read_text()
    assert "--skip-serve-logs" in script, "Airflow's log servers listen on every address"


def _raise(error: Exception) -> Callable[[], object]:
    def refuse() -> object:
        raise error

    return refuse


def test_up_lets_the_class_archive_be_made_beside_and_down_ends_it(
    stack: Stack, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ClassArchive(tools.tools_folder(chosen), java_home=Path("/java"))
    archive.path.unlink()
    monkeypatch.setattr(ClassArchive, "command", lambda self: [sys.executable, "-c", "import time; time.sleep(60)"])
    stack.up()
    made = stack.house.running("spark-classes")
    assert made is not None and [row.name for row in stack.status()] == ["first", "second"]
    stack.up()
    assert stack.house.running("spark-classes") == made
    assert stack.down() == {"first": 1, "second": 1, "spark-classes": 1}


@pytest.mark.parametrize(
    ("bootstrap", "names"),
    [
        ("", ["redis", "kafka", "airflow", "ranking", "nearline"]),
        ("far:9092", ["redis", "airflow", "ranking", "nearline"]),
    ],
)
def test_kafka_is_a_part_where_it_keeps_the_log_and_is_nobody_else_s(
    chosen: Settings, bootstrap: str, names: list[str]
) -> None:
    told = {**chosen.model_dump(), "event_log": "kafka", "kafka_bootstrap": bootstrap}
    assert [part.name for part in Stack(Settings(**told)).parts] == names
