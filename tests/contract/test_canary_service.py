"""The ranking service beside a canary and a shadow, over HTTP: who is shown what, and what the log says of it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bentos.ranking.schema import CanaryStatus, RecommendReply, StatusReply, UserReply
from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.snapshots import State
from infra.eventlog.exposures import RedisExposureLog
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from infra.snapshots.versions import Version
from tests.fixtures.halves import USERS, half_world, halves_of
from tests.fixtures.redis_server import new_redis
from tests.fixtures.service import Served, Stage, serving
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot


@dataclass
class Trial:
    """A service with v1 live, and v2 to try: their lists share no item."""

    served: Served
    tried: Version

    def begin(self, mode: CanaryMode, fraction: float) -> Canary:
        """Returns once the service has loaded it."""
        promotion = self.served.stage.promotion
        alias = promotion.start_canary(self.tried, fraction, mode, actor="ada", reason="r", force=True)
        canary = alias.canary
        assert canary is not None
        self.served.wait_status(lambda status: _runs(status, canary))
        return canary

    def end(self) -> None:
        self.served.stage.promotion.end_canary(self.tried.version, actor="ada", reason="enough", refused=False)
        self.served.wait_status(lambda status: status["canary"] is None)


def _runs(status: dict[str, object], canary: Canary) -> bool:
    if status.get("canary") is None:
        return False
    told = CanaryStatus.model_validate(status["canary"])
    return told.loaded_at is not None and told.started_at == canary.started_at.isoformat()


def logged(stage: Stage) -> list[Exposure]:
    """All lists that the log holds."""

    async def read() -> list[Exposure]:
        client = serving_client(stage.redis_url, timeout_s=10)
        log = RedisExposureLog(client, keys.exposure_log(RANKING), kept=1)
        try:
            return [row.exposure for row in await log.read(after="0-0", count=100_000)]
        finally:
            await client.aclose()

    return asyncio.run(read())


def logged_once(stage: Stage, holds: Callable[[list[Exposure]], bool]) -> list[Exposure]:
    """The log as soon as that is so: the service writes it a moment after its answers."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        found = logged(stage)
        if holds(found):
            return found
        time.sleep(0.02)
    raise AssertionError(f"the log did not come to that: {len(found)} lists, the last {found[-1:]}")


def ask(client: httpx.Client, user: int) -> RecommendReply:
    answer = client.post("/recommend", json={"user_id": f"u{user}", "n": 20})
    assert answer.status_code == 200, answer.text
    return RecommendReply.model_validate_json(answer.content)


def as_answered(reply: RecommendReply, one: Exposure) -> bool:
    """Whether the log says of that list what its answer said."""
    return (
        one.request_id == reply.request_id
        and f"predictions_{one.version}" == reply.snapshot
        and list(one.items) == [item.item_id for item in reply.items]
        and (one.degraded, one.total_ms) == (reply.degraded, reply.stage_ms["total"])
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    server = new_redis()
    stage = Stage(tmp_path_factory.mktemp("store"), server.url)
    stage.flip_live(world=half_world(0), k=40)
    yield stage
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def trial(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    tried = build_tiny_snapshot(str(stage.root), world=half_world(1), k=40, generation=1)
    tried.record(State.VALIDATED, actor="gate", reason="test")
    stage.promotion.load(tried, limit_fraction=1.0)
    with serving(stage, folder=tmp_path_factory.mktemp("service")) as served:
        served.wait_ready()
        yield Trial(served, tried)


@pytest.fixture
def client(trial: Trial) -> Iterator[httpx.Client]:
    trial.served.stage.client.delete(keys.exposure_log(RANKING))
    with httpx.Client(base_url=trial.served.url, timeout=20) as client:
        yield client


def test_a_user_is_always_shown_the_same_version_and_the_log_holds_every_answer(
    trial: Trial, client: httpx.Client
) -> None:
    canary = trial.begin(CanaryMode.CANARY, 0.5)
    assert client.post("/recommend", json={"user_id": ""}).status_code == 422
    replies = [(f"u{user}", ask(client, user)) for _ in range(3) for user in range(USERS)]
    for user, reply in replies:
        assert reply.snapshot == ("predictions_v2" if canary.takes(user) else "predictions_v1")
        assert halves_of(reply) <= {1 if canary.takes(user) else 0}
    assert {half for _, reply in replies for half in halves_of(reply)} == {0, 1}
    for user, reply in replies[:USERS]:
        assert UserReply.model_validate(client.get(f"/users/{user}").json()).snapshot == reply.snapshot
    found = logged_once(trial.served.stage, lambda lists: len(lists) >= len(replies))
    assert len(found) == len(replies)
    alias = trial.served.stage.promotion.alias.read()
    assert alias is not None
    for (user, reply), one in zip(replies, found, strict=True):
        assert as_answered(reply, one)
        arm = Arm.CANARY if canary.takes(user) else Arm.LIVE
        assert (one.user_id, one.arm, one.generation) == (user, arm, alias.generation)
    trial.end()


def test_a_shadow_scores_along_unseen_and_uncounted(trial: Trial, client: httpx.Client) -> None:
    before = StatusReply.model_validate(client.get("/status").json()).counters
    trial.begin(CanaryMode.SHADOW, 1.0)
    replies: list[RecommendReply] = []
    for user in range(20):
        replies.append(ask(client, user))
        logged_once(trial.served.stage, lambda lists: len(lists) == 2 * len(replies))
    lists = logged(trial.served.stage)
    shown = [one for one in lists if one.arm is Arm.LIVE]
    unseen = [one for one in lists if one.arm is Arm.SHADOW]
    assert all(as_answered(reply, one) for reply, one in zip(replies, shown, strict=True))
    assert {reply.snapshot for reply in replies} == {"predictions_v1"}
    assert [one.request_id for one in unseen] == [one.request_id for one in shown]
    assert {one.version for one in unseen} == {"v2"}
    assert all(int(item[1:]) % 2 for one in unseen if not one.degraded for item in one.items)
    wanted = before["exposures_logged"] + 40
    told = trial.served.wait_status(
        lambda status: StatusReply.model_validate(status).counters["exposures_logged"] >= wanted
    )
    after = StatusReply.model_validate(told).counters
    grown = {name: after[name] - before[name] for name in ("recommendations", "shadow_scored", "exposures_logged")}
    assert grown == {"recommendations": 20, "shadow_scored": 20, "exposures_logged": 40}
    assert (after["exposures_lost"], after["shadow_dropped"], after["shadow_failed"]) == (0, 0, 0)
    metrics = client.get("/metrics").text
    for name in ("exposures_logged", "shadow_scored"):
        assert f'headgate_{name}_total{{application="ranking"}} {float(after[name])}' in metrics
    trial.end()


def test_what_was_answered_just_before_the_service_stopped_is_in_the_log(stage: Stage, tmp_path: Path) -> None:
    with serving(stage, folder=tmp_path) as served:
        served.wait_ready()
        stage.client.delete(keys.exposure_log(RANKING))
        with httpx.Client(base_url=served.url, timeout=20) as client:
            replies = [ask(client, user) for user in range(30)]
    found = logged(stage)
    assert all(as_answered(reply, one) for reply, one in zip(replies, found, strict=True))
