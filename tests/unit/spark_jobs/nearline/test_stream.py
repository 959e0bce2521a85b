"""Spark's stream over a real Kafka gives the state that a plain loop gives, although its driver is killed again and again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from infra.config.settings import CHECKOUT
from infra.nearline.applying import apply_all
from infra.nearline.counting import Horizon
from infra.nearline.state import StateStore
from tests.fixtures.kafka import KafkaProcess
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.stream_town import HORIZON, PLAN, RANKING, Town, stream_town


@pytest_asyncio.fixture
async def town(own_kafka: KafkaProcess, own_redis: RedisProcess, tmp_path: Path) -> AsyncIterator[Town]:
    async with stream_town(own_kafka, own_redis, tmp_path) as made:
        yield made


async def test_a_stream_whose_driver_is_killed_counts_each_event_once(town: Town) -> None:
    await town.append(2_000)
    for _ in range(sized(1, full=5)):
        process = town.start()
        await town.until_counted(process, share=0.2)
        await town.append(2_000)
        process.kill()
        process.wait(timeout=10)
    process = town.start()
    await town.until_counted(process, share=1.0)
    await town.append(500)
    await town.until_counted(process, share=1.0)
    assert await town.digests() == await town.reference()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 60) == 0, town.said()
    assert json.loads((town.home / f"stream-{len(town.started) - 1}.log").read_text().splitlines()[-1])["name"]


async def test_a_stream_whose_checkpoint_is_ahead_of_the_state_counts_what_lies_before(town: Town) -> None:
    process = town.start()
    for _ in range(3):  # several micro-batches: all but the last are in the checkpoint for certain
        await town.append(200)
        await town.until_counted(process, share=1.0)
    process.kill()
    process.wait(timeout=10)
    await town.client.flushall()
    store = StateStore(town.client, RANKING, PLAN)
    claim = await store.claim(3, "by hand")  # one shard has a state of a worker's, the others none
    assert claim is not None
    await apply_all(await town.log.read({3: 0}, count=20), claim, store, PLAN, horizon=Horizon(HORIZON))
    await store.release([claim])
    await town.append(500)
    process = town.start()
    await town.until_counted(process, share=1.0)
    assert await town.digests() == await town.reference()


def test_the_stream_wants_kafka(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spark_jobs.nearline", "stream"]
    env = {**os.environ, "HEADGATE_HOME": str(tmp_path)}
    for more, wanted in (
        ({}, "Set HEADGATE_EVENT_LOG=kafka"),
        ({"HEADGATE_EVENT_LOG": "kafka"}, "MissingTool: Spark's Kafka connector is not in"),
    ):
        done = subprocess.run(command, env=env | more, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and wanted in done.stderr
