"""load: sends requests to a service and times them, in a process of its own: `python -m tests.bench.load --help`.

Closed loop: each connection sends again as soon as it was answered; finds the peak. Open loop: requests are due at the moments
of a Poisson process, whatever the answers do, and each latency counts from the moment the request was due, so that a service
that stalls is charged for everybody who would have waited.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import orjson
import uvloop


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What came back. Latencies in milliseconds; per_s: answers a second; stage_ms_p99: of the answers' own stage times."""

    sent: int
    failed: int
    degraded: int
    per_s: float
    late_sends_ms_p99: float
    latency_ms: dict[str, float]
    stage_ms_p50: dict[str, float]
    stage_ms_p99: dict[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send what: bodies are sent in a random order."""

    host: str
    port: int
    path: str
    bodies: tuple[bytes, ...]

    def request(self, number: int) -> bytes:
        """A whole HTTP/1.1 request."""
        body = self.bodies[number]
        head = f"POST {self.path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.index(b"content-length:") + 15
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length or self._waiting is None:
            return
        status, body = int(head[9:12]), self._buffer[end + 4 : end + 4 + length]
        self._buffer = b""
        waiting, self._waiting = self._waiting, None
        waiting.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((0, b""))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        if self._transport is None or self._transport.is_closing():
            return 0, b""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting


class _Results:
    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.late_ms: list[float] = []
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []

    def add(self, *, status: int, body: bytes, latency_s: float, late_s: float) -> None:
        self.latencies_ms.append(latency_s * 1000)
        self.late_ms.append(late_s * 1000)
        self.statuses.append(status)
        self.bodies.append(body)

    def report(self, *, seconds: float) -> LoadReport:
        answers = [orjson.loads(body) for status, body in zip(self.statuses, self.bodies, strict=True) if status == 200]
        stages: dict[str, list[float]] = {}
        for answer in answers:
            for stage, taken in answer.get("stage_ms", {}).items():
                stages.setdefault(stage, []).append(taken)
        return LoadReport(
            sent=len(self.statuses),
            failed=len(self.statuses) - len(answers),
            degraded=sum(bool(answer.get("degraded")) for answer in answers),
            per_s=round(len(answers) / seconds, 1),
            late_sends_ms_p99=_percentile(self.late_ms, 99),
            latency_ms={f"p{q}": _percentile(self.latencies_ms, q) for q in (50, 90, 99)},
            stage_ms_p50={stage: _percentile(taken, 50) for stage, taken in stages.items()},
            stage_ms_p99={stage: _percentile(taken, 99) for stage, taken in stages.items()},
        )


def _percentile(values: Sequence[float], q: float) -> float:
    return round(float(np.percentile(values, q)), 3) if values else float("nan")


async def _connect(target: Target) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, target.host, target.port)
    return connection


async def closed_loop(target: Target, *, connections: int, seconds: float, rng: np.random.Generator) -> LoadReport:
    """As many requests as `connections` callers get answered."""
    results = _Results()
    pool = [await _connect(target) for _ in range(connections)]
    started = time.perf_counter()

    async def caller(connection: _Connection, seed: int) -> None:
        mine = np.random.default_rng(seed)
        while (sent := time.perf_counter()) - started < seconds:
            status, body = await connection.ask(target.request(int(mine.integers(len(target.bodies)))))
            results.add(status=status, body=body, latency_s=time.perf_counter() - sent, late_s=0.0)
            if status == 0:
                return

    seeds = rng.integers(1 << 31, size=connections).tolist()
    await asyncio.gather(*(caller(connection, seed) for connection, seed in zip(pool, seeds, strict=True)))
    return results.report(seconds=time.perf_counter() - started)


async def open_loop(
    target: Target, *, per_s: float, connections: int, seconds: float, rng: np.random.Generator
) -> LoadReport:
    """Poisson arrivals at a rate; a request that finds every connection busy waits, and its wait counts."""
    results = _Results()
    idle: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(connections):
        idle.put_nowait(await _connect(target))
    due_s = np.cumsum(rng.exponential(1 / per_s, size=int(per_s * seconds * 1.2) + 10))
    due_s = due_s[due_s < seconds]
    numbers = rng.integers(len(target.bodies), size=len(due_s)).tolist()
    started = time.perf_counter()

    async def one(due: float, number: int) -> None:
        connection = await idle.get()
        sent = time.perf_counter() - started
        status, body = await connection.ask(target.request(number))
        results.add(status=status, body=body, latency_s=time.perf_counter() - started - due, late_s=sent - due)
        idle.put_nowait(connection if status else await _connect(target))

    tasks = []
    for due, number in zip(due_s.tolist(), numbers, strict=True):
        wait = due - (time.perf_counter() - started)
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(one(due, number)))
    await asyncio.gather(*tasks)
    return results.report(seconds=time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/recommend")
    parser.add_argument("--bodies", required=True, help="a file with one JSON body a line")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-s", type=float, default=0.0, help="open loop at this rate; 0: closed loop")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with open(chosen.bodies, "rb") as file:
        target = Target(chosen.host, chosen.port, chosen.path, tuple(file.read().splitlines()))
    rng = np.random.default_rng(chosen.seed)
    if chosen.per_s:
        run = open_loop(target, per_s=chosen.per_s, connections=chosen.connections, seconds=chosen.seconds, rng=rng)
    else:
        run = closed_loop(target, connections=chosen.connections, seconds=chosen.seconds, rng=rng)
    uvloop.install()
    sys.stdout.write(json.dumps(asdict(asyncio.run(run))) + "\n")


if __name__ == "__main__":
    main()
