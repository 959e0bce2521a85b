"""demo: the whole idea once, on real parts: build, judge, flip, recommend, roll back and forward; with the seconds of each."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from infra.catalog.applications.ranking import RANKING
from infra.config import console
from infra.config.settings import CHECKOUT, Settings
from infra.contracts.errors import OperatorError
from infra.contracts.ids import VersionName, version_name
from infra.local.airflow_client import AirflowClient
from infra.local.ask import ServiceClient
from infra.local.refresh import Refreshed, refresh_snapshot
from infra.local.source import SampleWorld, Source
from infra.local.stack.stack import Stack
from infra.snapshots.alias import AliasStore
from infra.snapshots.connection import batch_client

DRAFT = {"embedding_dim": 16, "candidates_per_user": 100, "ranker_trees": 0}
"""The form's fields for a first snapshot of the same events: what a rollback can go back to on a new machine."""

_UNKNOWN_USER = "someone new"
_WARM_REQUESTS = 5
_SERVED_WITHIN_S = 60.0


class Demo:
    """One run of it. `seconds` fills with each phase's time as it ends."""

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self._stack = Stack(chosen)
        self.seconds: dict[str, float] = {}

    def run(self, own: Source | None) -> dict[str, object]:
        """own: the user's data; without it the sample world. Leaves the stack running. Returns the figures."""
        began = time.monotonic()
        world = SampleWorld(self._chosen)
        with world if own is None else nullcontext():
            with self._phase("stack"):
                self._stack.up()
            with self._phase("data"):
                source = own or world.wait()
        with AirflowClient.local() as airflow, ServiceClient(self._stack.service.url) as service:
            before = self._live()
            if before is None:
                _head(
                    "A first, small snapshot (16 dimensions, 100 candidates, no ranker), so that there is something to roll back to"
                )
                with self._phase("draft"):
                    before = version_name(self._build(airflow, source, DRAFT).version)
            _head(f"The snapshot: {self._chosen.candidates_per_user:,} candidates a user")
            with self._phase("snapshot"):
                built = self._build(airflow, source, {})
            version = version_name(built.version)
            with self._phase("serving"):
                service.wait_for(version, user_id=_UNKNOWN_USER, timeout_s=_SERVED_WITHIN_S)
            stage_ms = self._recommend(service)
            click_ms = self._click(service)
            self._roll(service, before, version)
            self.seconds["total"] = round(time.monotonic() - began, 1)
            self._say_goodbye(service.url, airflow.url, built)
        return {
            "version": version,
            "previous": before,
            "seconds": self.seconds,
            "task_seconds": dict(built.task_seconds),
            "stage_ms": stage_ms,
            "click_to_list_ms": click_ms,
            "urls": {part.name: part.url for part in self._stack.parts if part.url} | {"run": built.run_url},
        }

    def _build(self, airflow: AirflowClient, source: Source, fields: dict[str, int]) -> Refreshed:
        done = refresh_snapshot(airflow, RANKING.name, conf={**source.form(), **fields})
        console.say(f"{done.version} is live after {done.seconds:.0f} s")
        return done

    def _live(self) -> VersionName | None:
        with batch_client(self._chosen.redis_url.get_secret_value()) as client:
            alias = AliasStore(client, RANKING.name).read()
        return alias.version if alias is not None else None

    def _recommend(self, service: ServiceClient) -> dict[str, float]:
        """Two users: one whom the snapshot knows, one whom nobody knows. Returns the first one's stage times."""
        _head("Recommendations")
        known = service.known_user() or _UNKNOWN_USER
        for _ in range(_WARM_REQUESTS):
            service.recommend(known)
        answers = [service.recommend(user) for user in (known, _UNKNOWN_USER)]
        for answer in answers:
            console.notes.print(answer.table())
            console.say(f"{answer.stages()}\n")
        return answers[0].stage_ms

    def _click(self, service: ServiceClient) -> float:
        """Somebody whom nobody knows clicks once. Returns the milliseconds from the click until the list that it changed."""
        visitor = f"visitor {uuid.uuid4().hex[:6]}"
        item = service.recommend(visitor).items[0]
        _head(f"A click on “{item.get('title') or item['item_id']}”, and the very next list")
        began = time.monotonic()
        service.click(visitor, str(item["item_id"]))
        after = service.recommend(visitor)
        taken_ms = round((time.monotonic() - began) * 1000, 1)
        console.notes.print(after.table())
        moved = ", ".join(f"{name} {value}" for name, value in service.nearline(visitor).items() if value)
        console.say(f"{taken_ms:.0f} ms after the click; the stream knows: {moved}\n")
        return taken_ms

    def _roll(self, service: ServiceClient, before: VersionName, version: VersionName) -> None:
        """Back and forward once, by the command that an operator types, timed until an answer comes from the other version."""
        _head("Roll back and forward")
        for phase, target in (("rollback", before), ("forward", version)):
            with self._phase(phase):
                words = ["rollback", "--version", target, "--reason", f"make demo: {phase}"]
                command = [sys.executable, "-m", "infra.snapshots", *words]
                with subprocess.Popen(
                    command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                ) as process:
                    try:
                        service.wait_for(target, user_id=_UNKNOWN_USER, timeout_s=_SERVED_WITHIN_S)
                    finally:
                        said = process.communicate()[1].strip()
                if process.returncode:
                    raise OperatorError(f"{' '.join(command[1:])} failed: {said}")
            console.say(
                f"{phase:<9} {self.seconds[phase]:.2f} s from `make rollback VERSION={target}` to an answer from it"
            )

    def _say_goodbye(self, service_url: str, airflow_url: str, built: Refreshed) -> None:
        _head(f"Done in {self.seconds['total']:.0f} s; everything goes on running")
        for what, where in (
            ("see it", service_url),
            ("the API", f"{service_url}/docs"),
            ("Airflow", airflow_url),
            ("this run", built.run_url),
            ("its login", "make login"),
            ("next", "make status   make rollback   make snapshot DATA=path"),
            ("the end", "make down"),
        ):
            console.say(f"{what:<10} {where}")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)


def _head(text: str) -> None:
    console.say("")
    console.say(text)
    console.say("-" * min(len(text), 100))
