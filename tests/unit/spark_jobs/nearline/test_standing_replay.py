"""What stands for ever: worker, Spark's replay and a plain loop agree on it, and a restored Redis has it again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from pyspark.sql import SparkSession

from infra.contracts.events import SHARDS, Event
from infra.nearline.archive import Archiver, end_of
from infra.nearline.boards import BoardReader
from spark_jobs.nearline import replay, restore
from tests.fixtures.list_log import ListLog, each_once
from tests.unit.spark_jobs.nearline.test_replay import (
    HORIZON,
    NOW,
    NOW_US,
    PLAN,
    Stage,
    new_stage,
    reference,
    source,
    work,
)


def changed(number: int) -> Event:
    """Of nine items, said in any order over a year; some of it twice."""
    ago = timedelta(days=(number * 7919) % 365)
    said = {"available": number % 2} if number % 3 else {"title": f"T {number % 5}", "genres": "Drama|Music"}
    return Event(f"e{number - number % 9 // 8}", "item_changed", NOW - ago, {"item": f"i{number % 9}"}, dict(said))


async def standing(stage: Stage) -> dict[str, dict[str, str]]:
    reader = BoardReader(stage.client, stage.application, PLAN, kind="item")
    await reader.refresh(NOW_US)
    return {name: dict(values) for name, values in reader.current.standing.items()}


async def test_the_engines_agree_and_nothing_comes_back_with_a_restore(
    spark: SparkSession, redis_url: str, tmp_path: Path
) -> None:
    stage, log = new_stage(redis_url, str(tmp_path)), ListLog(seed=5)
    for number in range(120):
        await log.append(changed(number).records())
    await Archiver(log, stage.archive, records=20, seconds=1).once(at_once=True)
    await work(stage, log)
    states = replay.states(spark, source(stage))
    counted, before = await stage.digests(), await standing(stage)
    assert counted == reference(each_once(log, horizon=HORIZON))
    assert await asyncio.to_thread(replay.digests, states, PLAN, NOW_US) == counted
    assert 0 < len(before["unavailable"]) < 9 and before["changed_title"]
    await stage.lose()
    upto = {shard: end_of(stage.archive, shard) for shard in range(SHARDS)}
    target = restore.Target(redis_url, stage.application, PLAN, upto, "restore", NOW_US, {})
    await asyncio.to_thread(restore.restore, states, target)
    assert await standing(stage) == before
    await stage.close()
