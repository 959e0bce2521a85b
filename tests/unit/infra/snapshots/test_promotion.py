"""Load, flip, roll back and collect against a real Redis: what is refused, what is fenced, what survives full memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import redis

from infra.contracts.candidates import ScoreMap, unpack
from infra.contracts.errors import (
    FlipFenced,
    NotEnoughRoom,
    NothingToRollBackTo,
    OperatorError,
    SnapshotError,
    SnapshotNotFound,
    SnapshotNotLoaded,
    SnapshotNotValidated,
)
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import State
from infra.snapshots import keys
from infra.snapshots.connection import batch_client, require
from infra.snapshots.promotion import Promotion
from infra.snapshots.records import record_memory_bytes
from infra.snapshots.serving_copy import ServingCopy
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, candidate_rows, tiny_world

ALL = 1.0


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = batch_client(redis_url)
    client.flushall()
    yield client
    client.config_set("maxmemory", 0)
    client.config_set("maxmemory-policy", "noeviction")
    client.flushall()


@pytest.fixture
def promotion(client: redis.Redis, tmp_path: Path) -> Promotion:
    return Promotion(SnapshotStore(str(tmp_path), RANKING), client)


def validated(promotion: Promotion, tmp_path: Path) -> Version:
    alias = promotion.alias.read()
    version = build_tiny_snapshot(str(tmp_path), generation=alias.generation if alias else 0)
    version.record(State.VALIDATED, actor="gate", reason="test")
    return version


def live_path(promotion: Promotion) -> list[str]:
    return [target.version for target in promotion.flips.look().path]


def live(promotion: Promotion, tmp_path: Path) -> Version:
    version = validated(promotion, tmp_path)
    promotion.load(version, limit_fraction=ALL)
    promotion.flip(version, actor="t", reason="test")
    return version


def test_what_is_loaded_is_what_was_written_for_every_user(
    promotion: Promotion, client: redis.Redis, tmp_path: Path
) -> None:
    version = validated(promotion, tmp_path)
    report = promotion.load(version, limit_fraction=ALL)
    assert report.users == 120
    world = tiny_world()
    for row in candidate_rows(world, k=100, score_map=ScoreMap(2.0)):
        payload = client.get(keys.user_record(RANKING, version.version, str(row["user_id"])))
        assert isinstance(payload, bytes)
        record = unpack(payload)
        assert record.item_indices.tobytes() == row["item_indices"]
        assert record.scores.tobytes() == row["scores"]
        assert record.history.tobytes() == row["history"]
        assert record.features.tobytes() == row["features"]
        older = client.get(keys.consumed(RANKING, version.version, str(row["user_id"])))
        assert older is None or isinstance(older, bytes)
        known = [*record.history.tolist(), *np.frombuffer(older or b"", "<i4").tolist()]
        assert sorted(known) == np.frombuffer(cast(bytes, row["consumed"]), "<i4").tolist()


def test_strange_user_ids_are_keys_like_any_other(promotion: Promotion, client: redis.Redis, tmp_path: Path) -> None:
    world = tiny_world(users=5)
    world = type(world)(
        world.user_vectors, world.item_vectors, world.histories, ["a:b", "{x}", "n\nl", "nul\0", "ü*?["]
    )
    version = build_tiny_snapshot(str(tmp_path), world=world)
    version.record(State.VALIDATED, actor="gate", reason="test")
    promotion.load(version, limit_fraction=ALL)
    assert all(client.exists(keys.user_record(RANKING, version.version, user_id)) for user_id in world.user_ids)


def test_an_unvalidated_snapshot_is_neither_loaded_nor_flipped(promotion: Promotion, tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    with pytest.raises(
        SnapshotNotValidated, match=r"ranking/v1 is STAGED; wanted VALIDATED\. Run: make validate VERSION=v1"
    ):
        promotion.load(version, limit_fraction=ALL)
    with pytest.raises(SnapshotNotValidated):
        promotion.flip(version, actor="t", reason="")
    assert promotion.alias.read() is None


def test_a_snapshot_that_is_not_loaded_does_not_go_live(promotion: Promotion, tmp_path: Path) -> None:
    version = validated(promotion, tmp_path)
    with pytest.raises(SnapshotNotLoaded, match="is not in Redis"):
        promotion.flip(version, actor="t", reason="")
    assert promotion.alias.read() is None


def test_loading_twice_writes_once_and_a_lost_copy_is_loaded_again(
    promotion: Promotion, client: redis.Redis, tmp_path: Path
) -> None:
    version = validated(promotion, tmp_path)
    assert not promotion.load(version, limit_fraction=ALL).already_loaded
    assert promotion.load(version, limit_fraction=ALL).already_loaded
    client.delete(*client.keys(keys.version_pattern(RANKING, version.version).replace(":*", ":u:*")))
    assert not promotion.load(version, limit_fraction=ALL).already_loaded


def test_flipping_names_the_version_and_raises_the_generation(
    promotion: Promotion, client: redis.Redis, tmp_path: Path
) -> None:
    first, second = live(promotion, tmp_path), live(promotion, tmp_path)
    alias = promotion.alias.read()
    assert alias is not None
    assert (alias.version, alias.generation) == ("v2", 2)
    assert client.hget("headgate:{ranking}:predictions_current", "version") == b"predictions_v2"
    assert (first.state(), second.state()) == (State.RETIRED, State.LIVE)


def test_a_build_that_began_before_a_rollback_cannot_undo_it(promotion: Promotion, tmp_path: Path) -> None:
    live(promotion, tmp_path)
    live(promotion, tmp_path)
    late = validated(promotion, tmp_path)
    promotion.load(late, limit_fraction=ALL)
    promotion.rollback(None, actor="oncall", reason="bad", limit_fraction=ALL)
    with pytest.raises(
        FlipFenced, match=r"the alias is at generation 3 \(predictions_v1\), the build of v3 began at generation 2"
    ):
        promotion.flip(late, actor="build", reason="daily")
    alias = promotion.alias.read()
    assert alias is not None and alias.version == "v1"
    assert late.state() is State.VALIDATED
    assert promotion.flip(late, actor="oncall", reason="on purpose", force=True).generation == 4


def test_a_second_rollback_goes_further_back_and_does_not_toggle(promotion: Promotion, tmp_path: Path) -> None:
    versions = [live(promotion, tmp_path) for _ in range(3)]
    seen = [promotion.rollback(None, actor="t", reason="r", limit_fraction=ALL)[1].version for _ in range(2)]
    assert seen == ["v2", "v1"]
    with pytest.raises(NothingToRollBackTo, match="no version before v1"):
        promotion.rollback(None, actor="t", reason="r", limit_fraction=ALL)
    assert [version.state() for version in versions] == [State.LIVE, State.ROLLED_BACK, State.ROLLED_BACK]
    forward = promotion.rollback(VersionName("v3"), actor="t", reason="forward", limit_fraction=ALL)[1]
    assert (forward.version, forward.generation) == ("v3", 6)
    assert live_path(promotion) == ["v1", "v3"]


def test_a_rollback_works_with_redis_memory_full(promotion: Promotion, client: redis.Redis, tmp_path: Path) -> None:
    live(promotion, tmp_path)
    live(promotion, tmp_path)
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.set("anything", "x")
    assert promotion.rollback(None, actor="t", reason="full", limit_fraction=ALL)[1].version == "v1"


def test_a_rollback_to_a_collected_version_loads_it_again(
    promotion: Promotion, client: redis.Redis, tmp_path: Path
) -> None:
    for _ in range(4):
        live(promotion, tmp_path)
    deleted = promotion.collect(keep=2)
    assert sorted(deleted) == ["v1", "v2"]
    assert not client.keys("hg:{ranking.??}:v1:*")
    assert promotion.loaded() == ["v3", "v4"]
    promotion.rollback(VersionName("v1"), actor="t", reason="far back", limit_fraction=ALL)
    assert promotion.loaded() == ["v1", "v3", "v4"]


def test_garbage_collection_leaves_a_version_that_waits_for_its_flip(promotion: Promotion, tmp_path: Path) -> None:
    live(promotion, tmp_path)
    waiting = validated(promotion, tmp_path)
    promotion.load(waiting, limit_fraction=ALL)
    assert promotion.collect(keep=2) == {}
    promotion.flip(waiting, actor="t", reason="")


def test_a_load_that_would_not_fit_is_refused_before_a_key_is_written(
    promotion: Promotion, client: redis.Redis, tmp_path: Path
) -> None:
    version = validated(promotion, tmp_path)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 40_000)
    with pytest.raises(NotEnoughRoom, match="make gc"):
        promotion.load(version, limit_fraction=0.9)
    assert not client.keys(f"hg:*{RANKING}*")


def test_the_memory_preflight_is_near_what_redis_then_uses(
    promotion: Promotion, client: redis.Redis, tmp_path: Path
) -> None:
    world = tiny_world(users=2000, items=1500)
    version = build_tiny_snapshot(str(tmp_path), world=world, k=1000)
    version.record(State.VALIDATED, actor="gate", reason="test")
    report = promotion.load(version, limit_fraction=ALL)
    per_user = report.payload_bytes // report.users
    predicted = report.users * record_memory_bytes(payload_bytes=per_user, key_bytes=20)
    assert 0.9 * report.redis_bytes <= predicted <= 1.1 * report.redis_bytes


def test_a_redis_that_may_evict_is_refused(redis_url: str, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(OperatorError, match="wanted noeviction"):
        require(client, url=redis_url)


def test_a_changed_copy_in_redis_of_another_build_is_not_flipped(
    promotion: Promotion, client: redis.Redis, tmp_path: Path
) -> None:
    version = validated(promotion, tmp_path)
    promotion.load(version, limit_fraction=ALL)
    client.set(keys.load_marker(RANKING, version.version), '{"digest": "other", "users": 120}')
    with pytest.raises(SnapshotNotLoaded, match="another build"):
        ServingCopy(client, version).require_loaded(version.manifest())


def test_freshness_is_the_age_of_what_is_live(promotion: Promotion, tmp_path: Path) -> None:
    with pytest.raises(SnapshotNotFound):
        promotion.require_fresh(now=datetime.now(UTC), slo=timedelta(hours=1))
    live(promotion, tmp_path)
    assert promotion.require_fresh(now=datetime.now(UTC), slo=timedelta(hours=1)) < timedelta(minutes=1)
    with pytest.raises(SnapshotError, match=r"is 48\.0 h old; the freshness SLO is 36\.0 h"):
        promotion.require_fresh(now=datetime.now(UTC) + timedelta(hours=48), slo=timedelta(hours=36))


def test_flipping_to_what_is_live_changes_nothing(promotion: Promotion, tmp_path: Path) -> None:
    version = live(promotion, tmp_path)
    again = promotion.flip(version, actor="t", reason="retry")
    assert again.generation == 1
    assert live_path(promotion) == ["v1"]
