"""What the tests of commands share: two versions in a real store and Redis, the first live, and a town of users who click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.infra.experiments.town import Town


@pytest.fixture
def town(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Town]:
    town = Town(tmp_path / "store", redis_url, monkeypatch, capsys)
    yield town
    town.close()
