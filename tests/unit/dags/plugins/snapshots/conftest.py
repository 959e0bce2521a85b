"""The app behind the Snapshots page with a store and a Redis of its own, asked as a user with chosen rights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from fastapi.testclient import TestClient

from dags.plugins.snapshots.access import CANARY, CANARY_END, PROMOTE, ROLLBACK, AirflowAccess, refresh_dag_id
from dags.plugins.snapshots.routes import app
from infra.catalog.applications import application
from infra.config.settings import settings
from infra.contracts.canaries import CanaryMode
from infra.contracts.snapshots import Alias, State
from infra.experiments.deciding import Decider
from infra.snapshots.connection import batch_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, tiny_world
from validation.check import Finding, Severity, Status
from validation.judgement import Judgement
from validation.live import Live
from validation.report.filing import Ruling, file_report

REPORT = b"<!doctype html><title>report</title><p>as it was filed</p>"


@dataclass(frozen=True)
class Rights:
    """A user who may read and trigger exactly these DAGs."""

    reads: frozenset[str] = frozenset({refresh_dag_id(RANKING)})
    triggers: frozenset[str] = frozenset({PROMOTE, ROLLBACK, CANARY, CANARY_END})

    def may_read(self, dag_id: str) -> bool:
        return dag_id in self.reads

    def may_trigger(self, dag_id: str) -> bool:
        return dag_id in self.triggers


@dataclass(frozen=True)
class Shop:
    """Snapshots in every state that a test brings about."""

    root: str
    promotion: Promotion
    server: RedisProcess

    def staged(self) -> Version:
        return build_tiny_snapshot(self.root, world=tiny_world(users=20, items=60), k=10)

    def judged(self, state: State = State.VALIDATED) -> Version:
        version = self.staged()
        status = Status.PASSED if state is State.VALIDATED else Status.FAILED
        finding = Finding("coverage", "Every user once", Severity.FAIL, status, "19 of 20", "20 of 20", ())
        judgement = Judgement((finding,), True, {}, ())
        ruling = Ruling(RANKING, version.version, "d", judgement, Live(None), "gate", datetime.now(UTC))
        file_report(version, ruling, page=REPORT, facts={})
        version.record(state, actor="gate", reason=judgement.summary)
        return version

    def live(self, *, actor: str = "airflow:ada", reason: str = "a good build") -> Version:
        version = self.judged()
        self.promotion.load(version, limit_fraction=1.0)
        self.promotion.flip(version, actor=actor, reason=reason, force=True)
        return version

    def tried(self, version: Version, mode: CanaryMode = CanaryMode.CANARY) -> Alias:
        """Loaded, and begun for a fifth of the users."""
        self.promotion.load(version, limit_fraction=1.0)
        by, why = "airflow:ada", "a new ranker"
        return self.promotion.start_canary(version, 0.2, mode, actor=by, reason=why, force=True)

    def looked(self, *, after: timedelta = timedelta(0)) -> None:
        """Once at the canary that runs, so long after now."""
        with self.server_client() as client:
            decider = Decider(self.promotion, client, application(RANKING), settings(), actor="canary")
            running = decider.running()
            assert running is not None
            decider.decide(running, hours=None, now=datetime.now(UTC) + after)

    def server_client(self) -> redis.Redis:
        return batch_client(self.server.url)

    def back(self, *, reason: str = "duplicates") -> None:
        self.promotion.rollback(None, actor="airflow:bea", reason=reason, limit_fraction=1.0)


@pytest.fixture
def shop(tmp_path: Path, own_redis: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An empty one; the app reads it by the settings, as in Airflow."""
    root = str(tmp_path / "store")
    monkeypatch.setenv("HEADGATE_STORE", root)
    monkeypatch.setenv("HEADGATE_REDIS_URL", own_redis.url)
    settings.cache_clear()
    with batch_client(own_redis.url) as client:
        yield Shop(root, Promotion(SnapshotStore(root, RANKING), client), own_redis)
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def as_user() -> Iterator[Callable[[Rights], TestClient]]:
    """A client that asks with these rights."""

    def log_in(rights: Rights) -> TestClient:
        app.dependency_overrides[AirflowAccess] = lambda: rights
        return TestClient(app)

    yield log_in
    app.dependency_overrides.clear()


@pytest.fixture
def reader(as_user: Callable[[Rights], TestClient]) -> TestClient:
    """A client of a user with all rights."""
    return as_user(Rights())
