"""worker: the nearline worker as a process of the stack: it counts the feed's events, archives them and trims their log."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import redis

from infra.catalog.applications.ranking import RANKING
from infra.config.settings import CHECKOUT, Settings
from infra.local.stack.environment import fingerprint, stack_environment
from infra.local.stack.processes import Launch
from infra.snapshots import keys
from infra.snapshots.connection import batch_client


class NearlineWorker:
    """`python -m infra.nearline run`. It waits for Redis by itself, and for the log."""

    name = "nearline"
    title = "nearline worker"
    port = None
    port_setting = ""
    url = ""
    ready_within_s = 60.0
    stop_signal = signal.SIGTERM
    grace_s = 20.0  # it applies what it has read

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen

    def launch(self, *, java_home: Path | None) -> Launch:
        """The checkout is the working directory, where the code is found."""
        command = [sys.executable, "-m", "infra.nearline", "run", "--application", RANKING.name]
        own = fingerprint(self._chosen, command=command, extra={})
        return Launch(command, stack_environment(self._chosen, java_home=None), CHECKOUT, own)

    def problem(self) -> str:
        """It works once Redis knows a worker that lives."""
        try:
            with batch_client(self._chosen.redis_url.get_secret_value(), timeout_s=2.0) as client:
                alive = client.zcount(keys.nearline_workers(RANKING.name), time.time() * 1000, "+inf")
        except redis.exceptions.RedisError as error:
            return str(error) or type(error).__name__
        return "" if alive else "starting"
