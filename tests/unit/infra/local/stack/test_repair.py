"""What `make up` does for a Redis that forgot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.config.settings import Settings
from infra.local.stack.repair import repair
from tests.fixtures.service import Stage


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "store", redis_url)
    stage.client.flushall()
    for _ in range(2):
        stage.flip_live(k=5)
    yield stage
    stage.client.flushall()


@pytest.fixture
def chosen(stage: Stage, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", store=str(stage.root), redis_url=SecretStr(stage.redis_url))


def test_a_redis_that_came_back_empty_serves_what_was_live(
    stage: Stage, chosen: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stage.promotion.alias.read()
    stage.client.flushall()
    repair(chosen)
    assert stage.promotion.alias.read() == before
    assert stage.promotion.loaded() == ["v1", "v2"]
    assert "ranking: v2 is live again, generation 2" in capsys.readouterr().err


def test_where_nothing_was_forgotten_nothing_is_said(
    stage: Stage, chosen: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    repair(chosen)
    assert capsys.readouterr().err == ""


def test_what_cannot_be_rebuilt_is_said_and_stops_nobody(
    stage: Stage, chosen: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.client.flushall()
    shutil.rmtree(stage.root / "ranking/snapshots")
    repair(chosen)
    assert "ranking: it could not be rebuilt. There is no snapshot ranking/v1" in capsys.readouterr().err
