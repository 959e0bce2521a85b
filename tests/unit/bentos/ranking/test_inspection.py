"""What people and probes are told: users, histories, status, readiness."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis.asyncio

from bentos.ranking.content import RankingContent, RankingSnapshot, load_content
from bentos.ranking.inspection import Inspection
from bentos.ranking.pipeline import ranking_cascade
from bentos.ranking.reader import UserReader
from bentos.ranking.recommender import Recommender
from bentos.ranking.schema import ReadyReply, StatusReply, UserReply, UsersReply
from bentos.ranking.schema_lists import HistoryReply
from bentos.ranking.telemetry import Telemetry
from infra.catalog.applications.ranking import RANKING
from infra.contracts.errors import SnapshotNotFound
from infra.snapshots.live import LiveSnapshots
from tests.fixtures.nearline import did, forget
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import tiny_world
from tests.unit.bentos.ranking.kept import KeptDecisions, KeptLists, shadow_on


def inspection(stage: Stage, client: redis.asyncio.Redis, snapshot: RankingSnapshot | None) -> Inspection:
    live: LiveSnapshots[RankingContent] = LiveSnapshots(client, stage.promotion.store, load_content)
    live.current = snapshot
    if snapshot is not None:
        live.snapshot_problem = ""
    telemetry = Telemetry("ranking")
    lists = KeptLists(client, telemetry)
    recommender = Recommender(
        live,
        ranking_cascade(client, lane=None),
        RANKING,
        exposures=lists,
        decisions=KeptDecisions(telemetry),
        shadow=shadow_on(client, lists, telemetry),
    )
    return Inspection(live, recommender, UserReader(client, RANKING.name))


async def test_users_to_try_end_with_one_whom_nobody_knows(
    stage: Stage, client: redis.asyncio.Redis, snapshot: RankingSnapshot
) -> None:
    users = UsersReply.model_validate(inspection(stage, client, snapshot).users(5)).users
    assert [user.known for user in users] == [True] * 5 + [False]
    assert users[0].history_length == 20


async def test_a_history_is_newest_first_and_tells_what_only_the_stream_saw(
    stage: Stage, client: redis.asyncio.Redis, snapshot: RankingSnapshot
) -> None:
    await did(client, "u9", "i7", "i8", "not in the catalogue")
    try:
        user = UserReply.model_validate(await inspection(stage, client, snapshot).user("u9"))
        told = HistoryReply.model_validate(await inspection(stage, client, snapshot).history("u9", 3))
    finally:
        await forget(client, "u9")
    batch = [f"i{item}" for item in tiny_world().histories[9][:20]]
    expected = list(dict.fromkeys(["i8", "i7", *batch]))
    assert [item.item_id for item in user.history] == expected
    assert [item.seen_by for item in user.history][:3] == ["stream", "stream", "batch"]
    assert told == HistoryReply(user_id="u9", snapshot=user.snapshot, known=True, history=user.history[:3])
    assert (user.known, user.candidates) == (True, 100)
    assert set(user.features) == {
        "user_activity_log", "user_recent_activity_log", "user_days_since_last_log", "user_purchase_share",
        "user_age_years",
    }  # fmt: skip


async def test_an_unknown_user_has_no_features_and_no_history(
    stage: Stage, client: redis.asyncio.Redis, snapshot: RankingSnapshot
) -> None:
    user = UserReply.model_validate(await inspection(stage, client, snapshot).user("nobody"))
    assert (user.known, user.candidates, user.features, user.history) == (False, 0, {}, [])


async def test_status_and_readiness_before_and_after_a_snapshot_is_live(
    stage: Stage, client: redis.asyncio.Redis, snapshot: RankingSnapshot
) -> None:
    now = snapshot.manifest.created_at + timedelta(hours=1)
    before = inspection(stage, client, None)
    assert before.status(now=now) == {
        "application": "ranking",
        "ready": False,
        "problem": "no version is live yet",
        "mend": "Run: make snapshot",
        "live": None,
        "canary": None,
    }
    with pytest.raises(SnapshotNotFound, match="nothing to serve"):
        before.ready()
    after = inspection(stage, client, snapshot)
    assert ReadyReply.model_validate(after.ready()) == ReadyReply(ready=True, snapshot="predictions_v1", note="")
    status = StatusReply.model_validate(
        {**after.status(now=now), "boards_age_s": None, "counters": {}, "uptime_s": 0.0, "worker_pid": 1}
    )
    assert status.live is not None
    assert (status.live.snapshot, status.live.age_s, status.live.counts["items"]) == ("predictions_v1", 3600.0, 300)
    assert status.live.ranker["ranker"]["ndcg@10"] == 0.2
