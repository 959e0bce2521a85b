"""One process of the worker, from its real command line: it archives answers beside events, and drops them from their log."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from infra.catalog.applications.ranking import RANKING
from infra.config.settings import CHECKOUT
from infra.eventlog.decisions import BEGINNING, RedisDecisionLog
from infra.nearline.archive import archive_of
from infra.nearline.decision_archive import read_decisions
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import RedisProcess
from tests.unit.infra.nearline.test_decision_archive import decision


async def test_a_worker_archives_answers_and_trims_their_log(own_redis: RedisProcess, tmp_path: Path) -> None:
    store = tmp_path / "store"
    environment = {
        **os.environ,
        "HEADGATE_STORE": str(store),
        "HEADGATE_REDIS_URL": own_redis.url,
        "HEADGATE_LOG_REDIS_URL": own_redis.url,
        "HEADGATE_ARCHIVE_SECONDS": "0.2",
    }
    client = serving_client(own_redis.url, timeout_s=5.0)
    log = RedisDecisionLog(client, keys.decision_log(RANKING.name), kept=1000)
    await log.append([decision(number) for number in range(5)])
    given = await log.read(after=BEGINNING, count=10)
    command = [sys.executable, "-m", "infra.nearline", "run", "--application", RANKING.name]
    process = await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, env=environment)
    try:
        async with asyncio.timeout(60):
            while await log.read(after=BEGINNING, count=10):
                await asyncio.sleep(0.05)
        assert list(read_decisions(archive_of(str(store), RANKING.name))) == given
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 30)
        await client.aclose()
    assert code == 0
