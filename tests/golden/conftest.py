"""The tiny world with every scorer on, live in a Redis of the package's own, as the service pins it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from bentos.ranking.content import RankingSnapshot
from tests.fixtures.redis_server import new_redis
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import build_tiny_snapshot
from tests.unit.bentos.ranking.asking import pinned
from tests.unit.bentos.ranking.conftest import client

__all__ = ["client", "snapshot", "stage"]


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A store and a Redis with one live version that has a light scorer, trees and a network."""
    server = new_redis()
    stage = Stage(tmp_path_factory.mktemp("store"), server.url)
    stage.put_live(build_tiny_snapshot(str(stage.root), staged=True))
    yield stage
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="package")
def snapshot(stage: Stage) -> RankingSnapshot:
    """What a request pins."""
    return pinned(stage)
