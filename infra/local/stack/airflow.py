"""airflow: `airflow standalone` as the embedded default: SQLite, local tasks, on loopback, with passwords."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import httpx

from infra.config.settings import CHECKOUT, Settings
from infra.local.class_archive import ClassArchive
from infra.local.stack.environment import VENV_BIN, fingerprint, stack_environment
from infra.local.stack.ports import HOST
from infra.local.stack.processes import Launch
from infra.local.tools import tools_folder

_PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")

_PARTS_SCRIPT = """#!/bin/sh
case "$1" in
scheduler | triggerer) exec {airflow} "$@" --skip-serve-logs ;;
*) exec {airflow} "$@" ;;
esac
"""


class Airflow:
    """Scheduler, DAG processor, API server and triggerer under one parent."""

    name = "airflow"
    title = "Airflow"
    port_setting = "HEADGATE_AIRFLOW_PORT"
    ready_within_s = 180.0
    stop_signal = signal.SIGINT  # SIGTERM would orphan its children
    grace_s = 15.0

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self.port = chosen.airflow_port
        self.home = chosen.home.resolve() / "airflow"

    @property
    def url(self) -> str:
        """The web page; the REST API is below it."""
        return f"http://{HOST}:{self.port}"

    def launch(self, *, java_home: Path | None) -> Launch:
        """Its own folder is the working directory: Airflow and Spark leave files where they stand."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [str(VENV_BIN / "airflow"), "standalone"]
        variables = self._variables()
        own = fingerprint(self._chosen, command=command, extra={**variables, "JAVA_HOME": str(java_home or "")})
        environment = {**stack_environment(self._chosen, java_home=java_home), **variables}
        if java_home is not None:
            environment |= ClassArchive(tools_folder(self._chosen), java_home=java_home).variables()
        environment["PATH"] = os.pathsep.join([str(self._quiet_parts()), environment["PATH"]])
        return Launch(command, environment, self.home, own)

    def problem(self) -> str:
        """Every part must have been alive of late."""
        try:
            answer = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=3.0, trust_env=False)
            parts = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return "starting"
        sick = [part for part in _PARTS if (parts.get(part) or {}).get("status") != "healthy"]
        return f"waiting for {', '.join(sick)}" if sick else ""

    def _variables(self) -> dict[str, str]:
        sections: dict[str, dict[str, object]] = {
            "CORE": {
                "DAGS_FOLDER": CHECKOUT / "dags",
                "LOAD_EXAMPLES": False,
                "EXECUTOR": "LocalExecutor",
                "PARALLELISM": 4,
                "EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "SIMPLE_AUTH_MANAGER_ALL_ADMINS": False,  # a trigger must have somebody's name
            },
            "DATABASE": {"SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}"},
            "API": {"HOST": HOST, "PORT": self.port, "BASE_URL": self.url, "WORKERS": 1, "INSTANCE_NAME": "headgate"},
            # A change of a DAG is seen within half a minute; looking more often takes cores from the builds.
            "DAG_PROCESSOR": {"REFRESH_INTERVAL": 30, "MIN_FILE_PROCESS_INTERVAL": 30},
            "SCHEDULER": {
                "SCHEDULER_IDLE_SLEEP_TIME": 0.25,  # a flip follows a click within seconds all the same
                "TASK_INSTANCE_HEARTBEAT_TIMEOUT": 30,  # a killed task is retried after 30 s, not 300
            },
            "WORKERS": {
                "EXECUTION_API_TIMEOUT": 60,  # on a busy machine a first call takes longer than 5 s, which would kill the task
                # A scheduler that was started again goes on with its tasks some 10 s before the server listens that they ask.
                "EXECUTION_API_RETRIES": 15,
                "EXECUTION_API_RETRY_WAIT_MAX": 10,
            },
            "USAGE_DATA_COLLECTION": {"ENABLED": False},
        }
        flat = {
            f"AIRFLOW__{section}__{key}": str(value)
            for section, keys in sections.items()
            for key, value in keys.items()
        }
        return {"AIRFLOW_HOME": str(self.home), **flat}

    def _quiet_parts(self) -> Path:
        """A folder for the front of PATH, where `airflow standalone` finds its parts.

        Two of them would serve log files to other machines, on every address and on fixed ports; here all read the same disk.
        """
        folder = self.home / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "airflow"
        script.write_text(_PARTS_SCRIPT.format(airflow=shlex.quote(str(VENV_BIN / "airflow"))))
        script.chmod(0o755)
        return folder
