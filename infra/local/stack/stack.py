"""stack: up, down and status of everything, in one place; parts start side by side and are waited for together."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.config import console
from infra.config.settings import CHECKOUT, Settings
from infra.contracts.errors import DependencyUnavailable, OperatorError
from infra.local.class_archive import ClassArchive
from infra.local.stack import preflight
from infra.local.stack.airflow import Airflow
from infra.local.stack.component import Component
from infra.local.stack.embedded_redis import EmbeddedRedis
from infra.local.stack.environment import stack_environment
from infra.local.stack.kafka import LocalKafka
from infra.local.stack.ports import require_free
from infra.local.stack.preflight import Ground
from infra.local.stack.processes import Launch, ProcessHouse
from infra.local.stack.repair import repair
from infra.local.stack.service import RankingServer
from infra.local.stack.worker import NearlineWorker
from infra.local.tools import tools_folder

_POLL_S = 0.2
_CLASSES = "spark-classes"
"""What lays out Spark's classes beside the parts: it ends by itself, `down` ends it sooner."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One row of `make status`. state: running, starting, out of date, died, stopped, or external."""

    name: str
    state: str
    pid: int | None
    processes: int
    memory_mb: int
    uptime_s: float
    url: str
    note: str


class Stack:
    """This checkout's stack."""

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self.house = ProcessHouse(chosen.home.resolve())
        self.airflow = Airflow(chosen)
        self.service = RankingServer(chosen)
        embedded: list[Component] = [EmbeddedRedis(chosen)] if chosen.embedded_redis else []
        if chosen.embedded_kafka:
            embedded.append(LocalKafka(chosen))
        self.parts: list[Component] = [*embedded, self.airflow, self.service, NearlineWorker(chosen)]

    # -- up

    def up(self) -> dict[str, float]:
        """Start what does not run, start anew what died or whose settings changed, and return when all of it answers.

        Returns the seconds until each part answered. Whatever interrupts it, what this call started is stopped again.
        """
        with self._alone():
            ground = preflight.check(self._chosen, to_start=[part for part in self.parts if not self._is_up(part)])
            launches = {part.name: part.launch(java_home=ground.java_home) for part in self.parts}
            stale = [
                part for part in self.parts if self._is_up(part) and not self._is_current(part, launches[part.name])
            ]
            for part in stale:
                console.say(f"{part.title}: its settings have changed, starting it anew")
                self._stop(part.name)
                if part.port is not None:
                    require_free(part.port, what=part.title, setting=part.port_setting)
            seconds = self._start(launches)
            if any(part.name == EmbeddedRedis.name for part in self.parts):
                repair(self._chosen)
            self._lay_out_classes(ground.java_home)
            return seconds

    def _start(self, launches: dict[str, Launch]) -> dict[str, float]:
        began = time.monotonic()
        started: list[Component] = []
        try:
            for part in self.parts:
                if not self._is_up(part):
                    if self.house.started(part.name):
                        console.say(f"{part.title}: it died, starting it again")
                        self._stop(part.name)
                    started.append(part)
                    self.house.start(part.name, launches[part.name])
            return self._wait(self.parts, began=began)
        except BaseException:
            if started:
                console.say(f"stopping what was started: {', '.join(part.title for part in started)}")
            for part in reversed(started):
                self._stop(part.name)
            raise

    def _lay_out_classes(self, java_home: Path) -> None:
        """Begin to make Spark's class archive where there is none; jobs find it once it is there."""
        archive = ClassArchive(tools_folder(self._chosen), java_home=java_home)
        if archive.path.exists() or self.house.running(_CLASSES) is not None:
            return
        environment = {**stack_environment(self._chosen, java_home=java_home), "JAVA_HOME": str(java_home)}
        self.house.start(_CLASSES, Launch(archive.command(), environment, CHECKOUT, fingerprint=archive.path.name))

    def _wait(self, parts: Sequence[Component], *, began: float) -> dict[str, float]:
        """Until every part answers. Raises DependencyUnavailable, with the end of its log, where one dies or takes too long."""
        waiting, seconds = list(parts), dict[str, float]()
        with console.progress("stack", total=len(parts)) as advance:
            while waiting:
                for part in list(waiting):
                    problem = part.problem()
                    if not problem:
                        seconds[part.name] = round(time.monotonic() - began, 1)
                        place = f" at {part.url}" if part.url else ""
                        console.say(f"{part.title} answers{place} after {seconds[part.name]:.1f} s")
                        waiting.remove(part)
                        advance(1)
                        continue
                    if not self._is_up(part):
                        raise self._failed(part, "ended while it started")
                    if time.monotonic() - began > part.ready_within_s:
                        raise self._failed(part, f"does not answer after {part.ready_within_s:.0f} s ({problem})")
                advance(0)
                time.sleep(_POLL_S if waiting else 0)
        return seconds

    def _failed(self, part: Component, how: str) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"{part.title} {how}. {self.house.log_tail(part.name)}\n", mend="Then run: make up"
        )

    # -- down

    def down(self) -> dict[str, int]:
        """Stop everything this home started, also what an earlier `up` left half done. Returns processes ended by name."""
        with self._alone():
            titles = {part.name: part.title for part in self.parts} | {_CLASSES: "the making of Spark's class archive"}
            names = sorted(
                self.house.names(), key=lambda name: name in ("redis", "kafka")
            )  # those that use it go first
            ended = {}
            for name in names:
                console.say(f"stopping {titles.get(name, name)}")
                ended[name] = self._stop(name)
            left = self.house.names()
            if left:
                raise OperatorError(f"Still running: {', '.join(left)}.", mend="Run: make down, once more")
            return ended

    def _stop(self, name: str) -> int:
        for part in self.parts:
            if part.name == name:
                return self.house.stop(name, how=part.stop_signal, grace_s=part.grace_s)
        return self.house.stop(name)

    # -- status

    def status(self) -> list[PartStatus]:
        """What runs, cheaply: nothing is started or changed."""
        rows = [self._status(part) for part in self.parts]
        if not self._chosen.embedded_redis:
            rows.insert(
                0, PartStatus("redis", "external", None, 0, 0, 0.0, "HEADGATE_REDIS_URL", "not headgate's to start")
            )
        return rows

    def _status(self, part: Component) -> PartStatus:
        record = self.house.running(part.name)
        family = self.house.family(part.name)
        memory = sum(_memory_bytes(process) for process in family) // 2**20
        if record is None:
            note, state = "", "stopped"
            if self.house.started(part.name) or family:
                state, note = "died", f"see {self.house.log(part.name)}; make up starts it again"
            return PartStatus(part.name, state, None, len(family), memory, 0.0, part.url, note)
        problem = part.problem()
        uptime = time.time() - record.created_s
        state = "starting" if problem else "running"
        return PartStatus(part.name, state, record.pid, len(family), memory, round(uptime), part.url, problem)

    def running(self) -> list[str]:
        """The names of what lives."""
        return [name for name in self.house.names() if self.house.family(name)]

    # -- common ground

    def ground(self) -> Ground:
        """The preflight alone, for whoever wants to fail before longer work."""
        return preflight.check(self._chosen, to_start=[part for part in self.parts if not self._is_up(part)])

    def _is_up(self, part: Component) -> bool:
        return self.house.running(part.name) is not None

    def _is_current(self, part: Component, launch: Launch) -> bool:
        record = self.house.running(part.name)
        return record is not None and record.fingerprint == launch.fingerprint

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One up or down at a time in a home; the lock goes with the process that holds it."""
        path = self.house.home / "run" / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.say("another up or down is at work here; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _memory_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
