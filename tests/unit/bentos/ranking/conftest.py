"""A snapshot of a tiny world, live in a Redis of the package's own, as the service pins it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import redis.asyncio

from bentos.ranking.content import RankingSnapshot, load_content
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from tests.fixtures.redis_server import new_redis
from tests.fixtures.service import Stage


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A store and a Redis with one live version: 120 users, 300 items, 100 candidates a user."""
    server = new_redis()
    stage = Stage(tmp_path_factory.mktemp("store"), server.url)
    stage.flip_live()
    yield stage
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest_asyncio.fixture
async def client(stage: Stage) -> AsyncIterator[redis.asyncio.Redis]:
    """A client as the service's."""
    client = serving_client(stage.redis_url, timeout_s=2.0)
    yield client
    await client.aclose()


@pytest.fixture(scope="package")
def snapshot(stage: Stage) -> RankingSnapshot:
    """What a request pins."""
    alias = stage.promotion.alias.read()
    assert alias is not None
    live = LiveSnapshots(serving_client(stage.redis_url, timeout_s=2.0), stage.promotion.store, load_content)
    return live.read(alias)
