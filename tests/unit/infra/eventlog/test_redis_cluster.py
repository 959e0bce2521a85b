"""The event log in a cluster: what a script or a pipeline of one shard touches lies in one slot, so Redis lets it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot

from infra.contracts.events import SHARDS, shard_of
from infra.contracts.ids import VersionName
from infra.eventlog.redis_streams import RedisStreamLog
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_cluster import redis_cluster
from tests.unit.infra.eventlog.scenes import RANKING, everything, layout, spread


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a cluster of one node that has all slots."""
    with redis_cluster(tmp_path_factory.mktemp("cluster"), nodes=1) as (port,):
        yield port


def test_all_keys_of_one_shard_share_a_slot_and_the_shards_are_spread() -> None:
    slots = []
    for shard in range(SHARDS):
        user = next(name for name in map(str, range(1000)) if shard_of("user", name) == shard)
        names = [
            keys.event_log(RANKING, shard),
            keys.event_log_tip(RANKING, shard),
            *(keys.event_log_seen(RANKING, shard, half) for half in (0, 1)),
            keys.nearline_position(RANKING, shard),
            keys.nearline_state(RANKING, "user", user),
            keys.pending(RANKING, "user", user),
            keys.user_record(RANKING, VersionName("v1"), user),
        ]
        (slot,) = {key_slot(name.encode()) for name in names}
        slots.append(slot)
    assert len(set(slots)) == SHARDS


@pytest.mark.parametrize("entity", ["}{", "{x}", "a}b{c", "{", "}", "\n\0"])
def test_braces_in_an_id_move_no_key_out_of_its_shards_slot(entity: str) -> None:
    slot = key_slot(keys.event_log(RANKING, shard_of("user", entity)).encode())
    for name in (keys.nearline_state(RANKING, "user", entity), keys.pending(RANKING, "user", entity)):
        assert key_slot(name.encode()) == slot


async def test_a_cluster_lets_all_calls_of_the_log_touch_what_they_touch(cluster: int) -> None:
    log = RedisStreamLog(serving_client(f"redis://127.0.0.1:{cluster}/0", timeout_s=5.0), layout())
    sent = spread(range(100))
    assert not any(one.duplicate for one in await log.append(sent))
    assert all(one.duplicate for one in await log.append(sent))
    assert await everything(log, count=3) == {shard: sent[shard::SHARDS] for shard in range(SHARDS)}
    await log.trim(3, upto=1)
    assert (await log.extents([3]))[3].first == 2
    await log.close()


async def test_a_cluster_client_does_all_that_a_plain_one_does(cluster: int) -> None:
    with redis.Redis(port=cluster) as raw:
        raw.flushall()
        raw.script_flush()
    log = RedisStreamLog(RedisCluster(host="127.0.0.1", port=cluster), layout())  # type: ignore[arg-type]  # it has what a log uses
    sent = spread(range(64))
    assert not any(one.duplicate for one in await log.append(sent))
    assert all(one.duplicate for one in await log.append(sent))
    assert await everything(log, count=3) == {shard: sent[shard::SHARDS] for shard in range(SHARDS)}
    assert {extent.tip for extent in (await log.extents(range(SHARDS))).values()} == {4}
    await log.close()
