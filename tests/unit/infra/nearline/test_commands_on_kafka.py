"""The same worker with its log in Kafka, on a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.eventlog.kafka import KafkaLog
from infra.nearline.archive import archive_of, end_of
from tests.fixtures.kafka import KafkaProcess, own_kafka
from tests.fixtures.redis_server import RedisProcess
from tests.unit.infra.nearline.command_line import RANKING, Shop, shop_of, stop
from tests.unit.infra.nearline.scene import some

__all__ = ["own_kafka"]


@pytest.fixture
def shop(own_redis: RedisProcess, own_kafka: KafkaProcess, tmp_path: Path) -> Iterator[Shop]:
    with shop_of(own_redis, tmp_path / "home") as made:
        made.more = {
            "HEADGATE_EVENT_LOG": "kafka",
            "HEADGATE_KAFKA_BOOTSTRAP": own_kafka.bootstrap,
            "HEADGATE_LOG_KEPT_RECORDS": "10",
            "HEADGATE_LOG_DUPLICATE_HORIZON": "10",
        }
        yield made


async def test_a_worker_counts_archives_and_trims_kafka(shop: Shop, own_kafka: KafkaProcess) -> None:
    log = KafkaLog(RANKING, bootstrap=own_kafka.bootstrap, extra={})
    events = some(range(400))
    records = [record for one in events for record in one.records()]
    await log.append(records)
    await log.append(records[-1:])  # sent twice
    worker = shop.start()
    shop.until("applied")
    status = shop.until("archived")
    assert stop(worker).code == 0
    found = shop.ask("digest", "--json").result
    assert found["digests"] == shop.digests(events, found["now"])
    archive = archive_of(str(shop.home / "store"), RANKING)
    assert {shard: end_of(archive, shard) for shard in status} == {shard: row["tip"] for shard, row in status.items()}
    again = shop.start()  # its first trim comes at once, and finds all archived
    while all(row["first"] == 1 for row in shop.ask("status", "--json").result["shards"]):
        assert again.poll() is None
    assert stop(again).code == 0
    await log.close()
