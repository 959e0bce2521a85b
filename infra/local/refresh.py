"""refresh: one run of a snapshot's DAG through Airflow's REST API, followed task by task until it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.config import console
from infra.contracts.errors import OperatorError
from infra.contracts.ids import ApplicationName
from infra.local.airflow_client import AirflowClient, TaskChange

_OVER = frozenset({"success", "skipped", "failed", "upstream_failed", "removed"})


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A run that ended well. task_seconds: of each task alone; the run's seconds hold Airflow's scheduling too."""

    version: str
    run_url: str
    seconds: float
    task_seconds: Mapping[str, float]


def refresh_snapshot(client: AirflowClient, application: ApplicationName, *, conf: Mapping[str, object]) -> Refreshed:
    """Trigger `snapshot_refresh_<application>` as its form does and follow it. Raises OperatorError where it fails.

    conf: the form's fields; those left out stay at the settings.
    """
    dag_id, began = f"snapshot_refresh_{application}", time.monotonic()
    client.wait_for_dag(dag_id)
    before_us = client.running(dag_id)
    if before_us:
        console.say(f"{dag_id}: {before_us[0]} is running; one run at a time, so this one waits")
    client.unpause(dag_id)
    run_id = client.trigger(dag_id, conf=conf)
    url = client.run_url(dag_id, run_id)
    console.say(f"{dag_id}: {url}")
    task_seconds = _follow(client, dag_id, run_id)
    if client.run_state(dag_id, run_id) != "success":
        raise _failed(client, dag_id, run_id)
    version = str(client.result(dag_id, run_id, "flip").get("version", ""))
    if not version:
        raise OperatorError(
            f"The run {url} ended without a flip: its snapshot was not approved, or its canary was not decided. "
            "What was live stays live.",
            mend="Who or what held it and why: make history",
        )
    return Refreshed(version, url, round(time.monotonic() - began, 1), task_seconds)


def _follow(client: AirflowClient, dag_id: str, run_id: str) -> dict[str, float]:
    """Show the run's tasks until it has ended: a bar in a terminal, elsewhere a line for each task that is over."""
    total = len(client.task_ids(dag_id))
    board = _Board(total)
    with board:
        for change in client.follow(dag_id, run_id):
            board.show(change)
    return board.seconds


class _Board:
    """What is known of the tasks, and how it is shown."""

    def __init__(self, total: int) -> None:
        self.seconds: dict[str, float] = {}
        self._total = total
        self._over: set[str] = set()
        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console.notes, disable=not console.notes.is_terminal)
        self._row = self._bar.add_task("queued", total=total)

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, change: TaskChange) -> None:
        """Take note of a change, and tell it."""
        if change.state == "running":
            again = f" (try {change.try_number})" if change.try_number > 1 else ""
            self._bar.update(self._row, description=f"{change.task_id}{again}")
        if change.state in _OVER:
            self._over.add(change.task_id)
            self.seconds[change.task_id] = round(change.seconds or 0.0, 1)
            self._bar.update(self._row, completed=len(self._over))
        if change.state in _OVER or change.state == "up_for_retry":
            took = f"{change.seconds:.1f} s" if change.seconds is not None else "-"
            console.say(f"  {change.task_id:<12} {change.state:<10} {took:>8}   ({len(self._over)} of {self._total})")


def _failed(client: AirflowClient, dag_id: str, run_id: str) -> OperatorError:
    failure = client.failure(dag_id, run_id)
    url = client.run_url(dag_id, run_id)
    if failure is None:
        return OperatorError(f"The run {url} failed before any of its tasks did.", mend="Look at its page.")
    console.say(f"The last lines of the log of {failure.task_id}:")
    for line in failure.log_tail:
        console.say(f"  {line}")
    said = " ".join(failure.error.removeprefix("error:").split())
    return OperatorError(f"Task {failure.task_id} of {url} failed: {said}", mend=f"Its whole log: {failure.log_path}")
