"""The service and the worker as they are started for real: what they answered over HTTP is made again to the bit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np

from bentos.ranking.offline import Offline
from infra.catalog.applications.ranking import RANKING
from infra.catalog.features.nearline import plan_of
from infra.config.settings import CHECKOUT, settings
from infra.nearline.archive import archive_of
from infra.nearline.decision_archive import read_decisions
from spark_jobs.training.consistency import check, control, summary
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage, serving

ROUNDS, AT_ONCE = 40, 6


async def ask_and_act(client: httpx.AsyncClient, rng: np.random.Generator) -> str:
    """One request, and what the user does next; the request's id."""
    user = f"u{rng.integers(0, 20)}" if rng.random() < 0.8 else f"new {rng.integers(0, 3)}"
    body = {"user_id": user, "n": int(rng.integers(1, 60)), "context": {"recent_items": [f"i{rng.integers(0, 300)}"]}}
    reply = (await client.post("/recommend", json=body)).json()
    items = [row["item_id"] for row in reply["items"]]
    at = datetime.now(UTC) - timedelta(seconds=float(rng.choice([0, 0, 700])))
    events = [{"event_type": "click", "user_id": user, "item_id": items[0], "event_time": at.isoformat()}]
    (await client.post("/events", json={"events": events})).raise_for_status()
    return str(reply["request_id"])


async def shown(client: httpx.AsyncClient, user: str) -> list[str]:
    """A first page."""
    rows = (await client.post("/recommend", json={"user_id": user, "n": 30})).json()["items"]
    return [str(row["item_id"]) for row in rows]


async def answers(url: str) -> list[str]:
    rng = np.random.default_rng(3)
    asked: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        added = [{"event_type": "item_added", "item_id": f"newer {n}", "title": f"The new {n}"} for n in range(20)]
        (await client.post("/events", json={"events": added})).raise_for_status()
        async with asyncio.timeout(30):
            while not any(item.startswith("newer") for item in await shown(client, "whoever")):
                await asyncio.sleep(0.1)
        for _ in range(ROUNDS):
            asked += await asyncio.gather(*(ask_and_act(client, rng) for _ in range(AT_ONCE)))
    return asked


async def test_what_the_running_service_answered_is_made_again_to_the_bit(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    stage = Stage(tmp_path / "store", own_redis.url)
    stage.flip_live()
    environment = {
        "HEADGATE_STORE": str(stage.root),
        "HEADGATE_REDIS_URL": own_redis.url,
        "HEADGATE_LOG_REDIS_URL": own_redis.url,
        "HEADGATE_ARCHIVE_SECONDS": "0.3",
    }
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra.nearline", "run", cwd=CHECKOUT, env={**os.environ, **environment}
    )
    archive = archive_of(str(stage.root), RANKING.name)
    try:
        with serving(stage, folder=tmp_path, environment=environment) as served:
            await asyncio.to_thread(served.wait_ready)
            asked = await answers(served.url)
        async with asyncio.timeout(30):
            while not set(asked) <= {entry.decision().request_id for entry in read_decisions(archive)}:
                await asyncio.sleep(0.1)
    finally:
        worker.send_signal(signal.SIGTERM)
        await asyncio.wait_for(worker.wait(), 30)
    archived = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra.nearline", "archive", cwd=CHECKOUT, env={**os.environ, **environment}
    )
    assert await archived.wait() == 0
    entries = list(read_decisions(archive))
    offline = Offline(str(stage.root), RANKING.name, horizon=settings().log_duplicate_horizon)
    rows = await check(entries, offline, control(archive, plan_of(RANKING.name), entries))
    assert [row for row in rows if row.differences or not row.replayed] == []
    assert summary(rows).replayed == len(entries) > ROUNDS * AT_ONCE
    assert any(item.startswith("newer") for entry in entries for item in entry.decision().items)
    bases = [entry.decision().basis for entry in entries]
    assert any(basis.board_offsets for basis in bases)
    assert any(basis.pending for basis in bases)
