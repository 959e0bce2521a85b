"""nearline_rig: a log full of events, worker processes that count them, and a watch over how far they are.

Also a program: `python -m tests.bench.nearline_rig --per-second N --seconds S --out FILE` appends at a set rate, open loop, and
leaves when each record was due and where it went.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import psutil
import redis
from pydantic import SecretStr
from redis.cluster import RedisCluster

from infra.config.settings import CHECKOUT, settings
from infra.contracts.events import SHARDS, Event, Record
from infra.eventlog.protocol import EventLog
from infra.nearline.opening import open_log
from infra.snapshots import keys
from infra.snapshots.connection import batch_client
from tests.fixtures.redis_cluster import redis_cluster
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import RANKING

USERS, ITEMS = 20_000, 20_000
BATCH = 500
"""Events an append: what a service sends that takes events in batches."""

_LOOK_S = 0.05
"""While a log is drained: each look costs Redis and a core something, and the rate is of the looks' own moments."""
_WATCH_S = 0.002
_WATCH_ON_S = 120.0
"""How long it looks on after the last event was sent: an engine may have fallen behind."""

_STEP_S = 0.01


def made(n: int, *, seed: int, at: datetime | None = None) -> list[Event]:
    """Clicks, views and purchases of random users; the k-th most popular item is taken in proportion to k^-0.9."""
    rng = random.Random(seed)
    items = rng.choices(range(ITEMS), cum_weights=_popularity(), k=n)
    at = at or datetime.now(UTC)
    types = rng.choices(("click", "view", "purchase"), (70, 20, 10), k=n)
    return [
        Event(
            f"{seed}-{number:024d}",
            event_type,
            at,
            {"user": f"u{rng.randrange(USERS)}", "item": f"i{item}"},
        )
        for number, (event_type, item) in enumerate(zip(types, items, strict=True))
    ]


@functools.cache
def _popularity() -> list[float]:
    return list(itertools.accumulate((rank + 1) ** -0.9 for rank in range(ITEMS)))


def records_of(events: Sequence[Event]) -> list[Record]:
    """Each event's records."""
    return [record for event in events for record in event.records()]


def log_at(url: str, *, timeout_s: float = 30.0) -> EventLog:
    """The log in a Redis, as services and workers open it."""
    chosen = settings().model_copy(
        update={"redis_url": SecretStr(url), "log_redis_url": SecretStr(url), "event_log": "redis"}
    )
    return open_log(chosen, RANKING, timeout_s=timeout_s)


def fill(url: str, n: int, *, seed: int = 1) -> float:
    """Append n events, one batch after the other. Returns events a second."""
    batches = [records_of(made(BATCH, seed=seed * 1_000_003 + number)) for number in range(n // BATCH)]

    async def append() -> float:
        log = log_at(url)
        began_s = time.perf_counter()
        for batch in batches:
            await log.append(batch)
        seconds = time.perf_counter() - began_s
        await log.close()
        return seconds

    return n / asyncio.run(append())


def looking_at(url: str) -> redis.Redis:
    """A blocking client of a Redis, or of a cluster."""
    if url.startswith("redis+cluster://"):
        return cast(redis.Redis, RedisCluster.from_url(url.replace("redis+cluster", "redis")))
    return batch_client(url)


def counted(client: redis.Redis) -> list[int]:
    """Up to which offset each shard is counted."""
    pipe = client.pipeline(transaction=False)
    for shard in range(SHARDS):
        pipe.hget(keys.nearline_position(RANKING, shard), "offset")
    return [int(offset or 0) for offset in pipe.execute()]


@contextmanager
def place(servers: int = 1) -> Iterator[tuple[Path, list[RedisProcess]]]:
    """An empty folder and empty Redis servers."""
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as name:
        folder = Path(name)
        made = []
        try:
            for number in range(servers):
                (folder / f"redis-{number}").mkdir()
                made.append(RedisProcess(folder / f"redis-{number}"))
                made[-1].start()
            yield folder, made
        finally:
            for server in made:
                server.stop()


@contextmanager
def workers(url: str, count: int, folder: Path, *, environment: dict[str, str] | None = None) -> Iterator[list[int]]:
    """Worker processes until the block ends; their process ids."""
    variables = {
        **os.environ,
        "HEADGATE_REDIS_URL": url,
        "HEADGATE_STORE": str(folder / "store"),
        **(environment or {}),
    }
    command = [sys.executable, "-m", "infra.nearline", "run", "--no-archive"]
    started = []
    try:
        for number in range(count):
            log = (folder / f"worker-{number}.log").open("ab")
            started.append(subprocess.Popen(command, cwd=CHECKOUT, env=variables, stdout=log, stderr=log))
            log.close()
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=30)


@dataclass(frozen=True, slots=True)
class Drained:
    """How fast a full log was counted, and what an event cost: microseconds of processor."""

    events_per_s: float
    worker_us: float
    redis_us: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Redis Cluster."""

    url: str
    pids: list[int]


@contextmanager
def sharded(*, nodes: int) -> Iterator[tuple[Path, Cluster]]:
    """An empty folder and an empty cluster."""
    with (
        tempfile.TemporaryDirectory(prefix="headgate-bench-") as name,
        redis_cluster(Path(name) / "cluster", nodes=nodes) as ports,
    ):
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        pids = [one.pid for one in listening if one.laddr and one.laddr.port in ports and one.pid]
        yield Path(name), Cluster(f"redis+cluster://127.0.0.1:{ports[0]}", pids)


def drained(server: RedisProcess | Cluster, count: int, folder: Path, *, events: int) -> Drained:
    """That many workers count a full log; timed from a quarter of it to three quarters, while all have work."""
    records_an_event = 2
    total = events * records_an_event
    redis_pids = server.pids if isinstance(server, Cluster) else [server.process.pid] if server.process else []
    environment = {"HEADGATE_LOG_REDIS_URL": server.url}
    with looking_at(server.url) as client, workers(server.url, count, folder, environment=environment) as pids:
        while (first := sum(counted(client))) < total / 4:
            time.sleep(_LOOK_S)
        began_s, spent = time.perf_counter(), [_cpu_s(pids), _cpu_s(redis_pids)]
        while (done := sum(counted(client))) < total * 3 / 4:
            time.sleep(_LOOK_S)
        counted_events = (done - first) / records_an_event
        rate = counted_events / (time.perf_counter() - began_s)
        worker_us, redis_us = (
            1e6 * (now - before) / counted_events
            for now, before in zip((_cpu_s(pids), _cpu_s(redis_pids)), spent, strict=True)
        )
        while sum(counted(client)) < total:
            time.sleep(_LOOK_S)
        return Drained(rate, worker_us, redis_us)


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


@dataclass(frozen=True, slots=True)
class Sent:
    """When each record was due (seconds of the machine's monotonic clock), its shard and its offset."""

    due_s: list[float]
    shards: list[int]
    offsets: list[int]


def freshness_ms(sent: Sent, looks: Sequence[tuple[float, Sequence[int]]]) -> list[float]:
    """For each record the milliseconds from when it was due to the first look that found it counted."""
    out: list[float] = []
    by_shard: dict[int, list[tuple[int, float]]] = {}
    for due_s, shard, offset in zip(sent.due_s, sent.shards, sent.offsets, strict=True):
        by_shard.setdefault(shard, []).append((offset, due_s))
    for shard, rows in by_shard.items():
        at = 0
        for offset, due_s in sorted(rows):
            while at < len(looks) and looks[at][1][shard] < offset:
                at += 1
            out.append((looks[at][0] - due_s) * 1000 if at < len(looks) else float("inf"))
    return out


def watched_ms(
    url: str, folder: Path, chosen: argparse.Namespace, *, seed: int, environment: dict[str, str] | None = None
) -> list[float]:
    """Send from a process of its own and look every 2 ms up to where the shards are counted. url: of the state's Redis.

    environment: what names another log than that Redis.
    """
    out = folder / "sent.json"
    sender = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.bench.nearline_rig", "--out", str(out)),
            *("--per-second", str(chosen.per_second), "--seconds", str(chosen.seconds), "--seed", str(seed)),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "HEADGATE_REDIS_URL": url, **(environment or {})},
    )
    looks: list[tuple[float, list[int]]] = []
    with looking_at(url) as client:
        while sender.poll() is None:
            looks.append((time.monotonic(), counted(client)))
            time.sleep(_WATCH_S)
        if sender.returncode:
            raise RuntimeError(f"the sender ended with {sender.returncode}")
        sent = Sent(**json.loads(out.read_text()))
        ends = [0] * SHARDS
        for shard, offset in zip(sent.shards, sent.offsets, strict=True):
            ends[shard] = max(ends[shard], offset)
        deadline_s = time.monotonic() + _WATCH_ON_S
        while any(seen < end for seen, end in zip(looks[-1][1], ends, strict=True)) and time.monotonic() < deadline_s:
            looks.append((time.monotonic(), counted(client)))
            time.sleep(_WATCH_S)
    return freshness_ms(sent, looks)


def send(log: EventLog, *, per_second: int, seconds: float, seed: int) -> Sent:
    """Append at that rate, in steps of 10 ms, whatever the answers do: an append that is late delays no other's due time."""
    a_step = max(1, round(per_second * _STEP_S))
    out = Sent([], [], [])

    async def run() -> None:
        began_s = time.monotonic() + 0.2
        under_way: set[asyncio.Task[None]] = set()
        for step in range(round(seconds / _STEP_S)):
            due_s = began_s + step * _STEP_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            task = asyncio.create_task(one(due_s, step))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        await log.close()

    async def one(due_s: float, step: int) -> None:
        records = records_of(made(a_step, seed=seed * 1_000_003 + step))
        for place in await log.append(records):
            out.due_s.append(due_s)
            out.shards.append(place.shard)
            out.offsets.append(place.offset)

    asyncio.run(run())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-second", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    sent = send(
        open_log(settings(), RANKING, timeout_s=30.0),
        per_second=chosen.per_second,
        seconds=chosen.seconds,
        seed=chosen.seed,
    )
    chosen.out.write_text(json.dumps({"due_s": sent.due_s, "shards": sent.shards, "offsets": sent.offsets}))


if __name__ == "__main__":
    main()
