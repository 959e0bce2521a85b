"""command_line: an application of a test's own, asked by the real command line of the nearline worker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import redis

from infra.catalog.features.nearline import plan_of
from infra.config.settings import CHECKOUT
from infra.contracts import features as contract
from infra.contracts.events import SHARDS, Event
from infra.contracts.features import Deltas
from infra.contracts.ids import ApplicationName
from infra.eventlog.protocol import EventLog
from infra.eventlog.redis_streams import RedisStreamLog
from infra.nearline.moments import microseconds
from infra.nearline.opening import stream_layout
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import RedisProcess

RANKING = ApplicationName("ranking")
PLAN = plan_of(RANKING)


@dataclass
class Said:
    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.stdout))


@dataclass
class Shop:
    """An application of its own, asked by the real command line."""

    server: RedisProcess
    home: Path
    more: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        own = {
            "HEADGATE_REDIS_URL": self.server.url,
            "HEADGATE_HOME": str(self.home),
            "HEADGATE_ARCHIVE_SECONDS": "0.1",
        }
        return {**os.environ, **own, **self.more}

    def ask(self, *words: str, module: str = "infra.nearline") -> Said:
        command = [sys.executable, "-m", module, *words]
        done = subprocess.run(
            command, env=self.env, cwd=CHECKOUT, capture_output=True, text=True, timeout=180, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "infra.nearline", "run", *words]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=self.env, cwd=CHECKOUT, stdout=pipe, stderr=pipe, text=True)
        self.started.append(process)
        return process

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.server.url)

    def log(self) -> EventLog:
        """The application's log in Redis."""
        horizon = int(self.more.get("HEADGATE_LOG_DUPLICATE_HORIZON", "20000"))
        return RedisStreamLog(serving_client(self.server.url, timeout_s=5.0), stream_layout(RANKING, horizon=horizon))

    def append(self, events: Sequence[Event]) -> None:
        async def do() -> None:
            log = self.log()
            await log.append([record for one in events for record in one.records()])
            await log.close()

        asyncio.run(do())

    def until(self, wanted: str) -> dict[int, Any]:
        """Poll the status until its shards are all counted, or all archived."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            shards = self.ask("status", "--json").result["shards"]
            if all(row[wanted] == row["tip"] for row in shards):
                return {row["shard"]: row for row in shards}
        raise AssertionError(f"not all was {wanted} within a minute: {shards}")

    def digests(self, events: list[Event], now: str) -> dict[str, str]:
        """What they must be, from the events alone."""
        by_shard: dict[int, Deltas] = {shard: {} for shard in range(SHARDS)}
        for record in {(one.event_id, record.kind): record for one in events for record in one.records()}.values():
            PLAN.accumulate([record], by_shard[record.shard])
        now_us = microseconds(datetime.fromisoformat(now))
        return {str(shard): contract.digest(states, PLAN, now_us) for shard, states in by_shard.items()}


@contextmanager
def shop_of(server: RedisProcess, home: Path) -> Iterator[Shop]:
    """Ends what it started."""
    made = Shop(server, home)
    try:
        yield made
    finally:
        for process in made.started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)


def stop(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> Said:
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    return Said(process.returncode, out, err)
