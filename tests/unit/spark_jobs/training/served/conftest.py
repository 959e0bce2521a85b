"""A feed that answered amid events, archived: made once on a real Redis, looked at by several files from the store alone."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bentos.ranking.offline import Offline
from infra.config.settings import settings
from infra.eventlog.decisions import LoggedDecision
from infra.nearline.archive import archive_of
from infra.nearline.decision_archive import read_decisions
from infra.snapshots.storage import Storage
from tests.fixtures.answers import HORIZON, NAME, town
from tests.fixtures.redis_server import new_redis

ANSWERS = 210


@dataclass(frozen=True)
class Past:
    """since, until: a time that all answers were logged within."""

    store: str
    since: datetime
    until: datetime

    @property
    def archive(self) -> Storage:
        return archive_of(self.store, NAME)

    @property
    def entries(self) -> list[LoggedDecision]:
        return list(read_decisions(self.archive))

    def offline(self) -> Offline:
        return Offline(self.store, NAME, horizon=HORIZON)


@pytest.fixture(scope="package")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    server = new_redis()
    store = tmp_path_factory.mktemp("served")
    since = datetime.now(UTC)
    try:
        asyncio.run(_live(server.url, store))
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
    yield Past(str(store), since - timedelta(seconds=1), datetime.now(UTC) + timedelta(seconds=1))


@pytest.fixture
def chosen(past: Past, monkeypatch: pytest.MonkeyPatch) -> Iterator[Past]:
    """The same as the command lines see it: visits are over at once."""
    monkeypatch.setenv("HEADGATE_STORE", past.store)
    monkeypatch.setenv("HEADGATE_VISIT_MINUTES", "0.005")
    monkeypatch.setenv("HEADGATE_ARCHIVE_SECONDS", "0.001")
    monkeypatch.setenv("HEADGATE_LOG_DUPLICATE_HORIZON", str(HORIZON))
    settings.cache_clear()
    yield past
    monkeypatch.undo()
    settings.cache_clear()


async def _live(url: str, store: Path) -> None:
    async with town(url, store, seed=11) as place:
        await place.live(answers=ANSWERS)
        await place.archive_all()
