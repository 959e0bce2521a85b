"""The load generator: counts from the moment a request was due, and tells failures from answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from tests.bench.bench_serve import whole_or_raise
from tests.bench.load import LoadReport, Target, closed_loop, open_loop

OK = b'{"degraded": false, "stage_ms": {"rank": 2.0}}'

Answer = Callable[[int], Awaitable[tuple[int, bytes]]]


@asynccontextmanager
async def _server(answer: Answer) -> AsyncIterator[Target]:
    """A service that gives `answer(n)` to its n-th request."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                asked += 1
                status, body = await answer(asked)
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode())
                await writer.drain()
                writer.write(body)  # a part of its own, as a long body comes
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Target("127.0.0.1", port, "/recommend", (b'{"user_id": "u1"}',))
    finally:
        server.close()


async def _whole(_: int) -> tuple[int, bytes]:
    return 200, OK


async def test_answers_failures_and_stage_times_are_told_apart() -> None:
    async def every_third_fails(n: int) -> tuple[int, bytes]:
        return (503, b"{}") if n % 3 == 0 else (200, OK)

    async with _server(every_third_fails) as target:
        report = await closed_loop(target, connections=2, seconds=0.3, rng=np.random.default_rng(1))
    assert report.sent > 6 and abs(report.failed - report.sent / 3) <= 1
    assert report.stage_ms_p50 == {"rank": 2.0} and report.degraded == 0


async def test_a_request_that_had_to_wait_for_another_is_charged_for_its_wait() -> None:
    stalled_s = 0.4

    async def first_stalls(n: int) -> tuple[int, bytes]:
        if n == 1:
            await asyncio.sleep(stalled_s)
        return 200, OK

    async with _server(first_stalls) as target:
        run = open_loop(target, per_s=100, connections=1, seconds=0.3, rng=np.random.default_rng(2))
        report = await run
    assert report.sent > 10 and report.failed == 0
    assert report.latency_ms["p50"] > 1000 * (stalled_s - 0.3), "every one was due while the first stalled"


def test_latencies_of_answers_that_are_not_whole_are_refused() -> None:
    whole = LoadReport(5000, 0, 5, 100.0, 0.1, {}, {}, {})
    whole_or_raise([whole, whole])
    for failed, degraded in ((1, 0), (0, 6)):
        with pytest.raises(RuntimeError, match="Repeat it on a quiet one"):
            whole_or_raise([replace(whole, failed=failed, degraded=degraded)])


async def test_open_loop_sends_as_many_as_were_due_however_the_service_is() -> None:
    async with _server(_whole) as target:
        runs = [
            await open_loop(target, per_s=200, connections=4, seconds=0.5, rng=np.random.default_rng(seed))
            for seed in (3, 3, 4)
        ]
    assert runs[0].sent == runs[1].sent != runs[2].sent, "the arrivals follow from the seed"
    assert all(60 <= run.sent <= 140 for run in runs)
