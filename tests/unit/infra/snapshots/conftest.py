"""What the tests of snapshots share: four built versions, and somebody at a shell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.config.settings import settings
from infra.snapshots.connection import batch_client
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, tiny_world
from tests.unit.infra.snapshots.shell_operator import Operator


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with four sealed versions, the last two built side by side; each test has a copy."""
    root = tmp_path_factory.mktemp("built")
    for number in range(4):
        build_tiny_snapshot(str(root), world=tiny_world(users=4, items=40), k=5, generation=min(number, 2))
    return root


@pytest.fixture
def stage(built: Path, redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    shutil.copytree(built, tmp_path / "store")
    stage = Stage(tmp_path / "store", redis_url)
    stage.client.flushall()
    yield stage
    stage.client.config_set("maxmemory", 0)
    stage.client.flushall()


@pytest.fixture
def headgate(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Operator]:
    client = batch_client(redis_url)
    client.flushall()
    yield Operator(tmp_path / "store", redis_url, monkeypatch, capsys)
    client.flushall()
    client.close()
    monkeypatch.undo()
    settings.cache_clear()
