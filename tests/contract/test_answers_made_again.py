"""The service and the worker as they are started for real: what they answered over HTTP is made again to the bit."""

from __future__ import annotations

from pathlib import Path

from bentos.ranking.offline import Offline
from infra.catalog.applications.ranking import RANKING
from infra.catalog.features.nearline import plan_of
from infra.config.settings import settings
from infra.nearline.decision_archive import read_decisions
from spark_jobs.training.consistency import check, control, summary
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.served_answers import AT_ONCE, served_answers

ROUNDS = 40


async def test_what_the_running_service_answered_is_made_again_to_the_bit(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    stage, archive = await served_answers(own_redis, tmp_path, rounds=ROUNDS)
    entries = list(read_decisions(archive))
    offline = Offline(str(stage.root), RANKING.name, horizon=settings().log_duplicate_horizon)
    rows = await check(entries, offline, control(archive, plan_of(RANKING.name), entries))
    assert [row for row in rows if row.differences or not row.replayed] == []
    assert summary(rows).replayed == len(entries) > ROUNDS * AT_ONCE
    assert any(item.startswith("newer") for entry in entries for item in entry.decision().items)
    bases = [entry.decision().basis for entry in entries]
    assert any(basis.board_offsets for basis in bases)
    assert any(basis.pending for basis in bases)
