"""kafka_broker: `make kafka-up` and `make kafka-down`: the local broker by itself; `make up` starts it where it keeps the log."""

from __future__ import annotations

import time

from infra.config import console
from infra.config.settings import Settings
from infra.contracts.errors import DependencyUnavailable
from infra.local.stack.kafka import LocalKafka
from infra.local.stack.processes import ProcessHouse

_POLL_S = 0.2


class Broker:
    """The local broker as a process of this home; `make down` stops it too."""

    def __init__(self, chosen: Settings) -> None:
        self.kafka = LocalKafka(chosen)
        self.house = ProcessHouse(chosen.home.resolve())

    def up(self) -> float:
        """Start it where it does not run, or runs otherwise than it would now. Returns the seconds until it answers.

        Raises MissingTool, PortTaken, and DependencyUnavailable where it does not answer; what this started is stopped again then.
        """
        began, name = time.monotonic(), self.kafka.name
        launch = self.kafka.launch(java_home=None)
        runs = self.house.running(name)
        starts = runs is None or runs.fingerprint != launch.fingerprint
        if starts:
            self.down()
            self.kafka.require_ports()
            self.house.start(name, launch)
        try:
            self._wait(began)
        except BaseException:
            if starts:
                self.down()
            raise
        return round(time.monotonic() - began, 1)

    def down(self) -> int:
        """Stop it. Returns how many processes that ended."""
        return self.house.stop(self.kafka.name, how=self.kafka.stop_signal, grace_s=self.kafka.grace_s)

    def _wait(self, began: float) -> None:
        while problem := self.kafka.problem():
            late = time.monotonic() - began > self.kafka.ready_within_s
            if late or self.house.running(self.kafka.name) is None:
                how = f"does not answer ({problem})" if late else "ended while it started"
                raise DependencyUnavailable(
                    f"{self.kafka.title} {how}. {self.house.log_tail(self.kafka.name)}\n",
                    mend="Then run: make kafka-up",
                )
            time.sleep(_POLL_S)
        console.say(f"{self.kafka.title} answers at {self.kafka.url} after {time.monotonic() - began:.1f} s")
