"""The serving copy against a real Redis: what was sealed is what is served, or it is not called loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import redis

from infra.contracts.candidates import ScoreMap
from infra.contracts.errors import NotEnoughRoom, SnapshotCorrupt, SnapshotNotLoaded
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Manifest
from infra.snapshots import keys
from infra.snapshots.connection import batch_client
from infra.snapshots.serving_copy import ServingCopy
from infra.snapshots.tables import CANDIDATES, CHUNKS
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, candidate_rows, tiny_world

MARKER = "hg:{ranking.00}:v1:loaded"
LOAD = r"Run: python -m infra\.snapshots load --application ranking --version v1"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = batch_client(redis_url)
    client.flushall()
    yield client
    client.config_set("maxmemory", 0)
    client.flushall()


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """120 users in two chunks: u0 to u59, u60 to u119."""
    return build_tiny_snapshot(str(tmp_path))


@pytest.fixture
def manifest(version: Version) -> Manifest:
    return version.manifest()


@pytest.fixture
def copy(client: redis.Redis, version: Version) -> ServingCopy:
    return ServingCopy(client, version)


@pytest.fixture
def loaded(copy: ServingCopy, manifest: Manifest) -> ServingCopy:
    assert not copy.load(manifest, limit_fraction=1.0).already_loaded
    return copy


def record(user: str) -> str:
    return keys.user_record(RANKING, VersionName("v1"), user)


def read(client: redis.Redis, key: str) -> bytes:
    value = client.get(key)
    assert isinstance(value, bytes)
    return value


def names(client: redis.Redis, pattern: str) -> list[str]:
    return sorted(key.decode() for key in cast("list[bytes]", client.keys(pattern)))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def flip_a_byte(client: redis.Redis, key: str, *, at: int = 100) -> None:
    value = bytearray(read(client, key))
    value[at] ^= 1
    client.set(key, bytes(value))


def cut_short(version: Version, name: str) -> None:
    version.storage.write(name, version.storage.read(name)[:-200])


def a_byte(client: redis.Redis) -> str:
    flip_a_byte(client, record("u77"))
    return r"of the \d+ keys of rows 0 to 59 of .*part-1\.parquet, 1 differ: the record of user 'u77' has another byte at 100"


def a_missing_key(client: redis.Redis) -> str:
    client.delete(record("u3"), record("u4"))
    return r"rows 0 to 59 of .*part-0\.parquet, 2 differ: the record of user 'u3' is missing"


def a_longer_value(client: redis.Redis) -> str:
    client.append(record("u3"), b"\0")
    return r"the record of user 'u3' has \d+ bytes, wanted \d+"


def another_type(client: redis.Redis) -> str:
    client.delete(record("u3"))
    client.hset(record("u3"), "a", "b")
    return r"the record of user 'u3' is missing"


def an_older_item(client: redis.Redis) -> str:
    flip_a_byte(client, names(client, "hg:{ranking.??}:v1:c:*")[0], at=0)
    return r"the older consumed items of user 'u\d+' has another byte at 0"


def a_foreign_key(client: redis.Redis) -> str:
    client.set(record("nobody"), b"x")
    return r"in Redis has b'hg:\{ranking\.\d\d\}:v1:u:nobody', a key of no user of the snapshot"


def older_items_of_one_who_has_none(client: redis.Redis) -> str:
    have = {key.rsplit(":", 1)[1] for key in names(client, "hg:{ranking.??}:v1:c:*")}
    user = min({f"u{number}" for number in range(120)} - have)
    client.set(keys.consumed(RANKING, VersionName("v1"), user), b"\0\0\0\0")
    return rf"in Redis has b'hg:\{{ranking\.\d\d\}}:v1:c:{user}', a key of no user"


DAMAGES = [
    a_byte,
    a_missing_key,
    a_longer_value,
    another_type,
    an_older_item,
    a_foreign_key,
    older_items_of_one_who_has_none,
]


def test_a_loaded_copy_is_verified_in_full_or_in_as_many_chunks_as_asked(
    loaded: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    in_full = loaded.verify(manifest, chunks=None, rng=rng())
    held = len(client.keys("hg:{ranking.??}:v1:[uc]:*"))
    assert (in_full.chunks, in_full.chunks_in_all, in_full.users, in_full.keys) == (2, 2, 120, held)
    assert held > 120, "some users have older consumed items"
    sampled = loaded.verify(manifest, chunks=1, rng=rng())
    assert (sampled.chunks, sampled.chunks_in_all, sampled.users) == (1, 2, 60)
    assert loaded.verify(manifest, chunks=100, rng=rng()).chunks == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_difference_is_found_named_and_mended_by_the_command_that_is_told(
    damage: Callable[[redis.Redis], str], loaded: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    told = damage(client)
    with pytest.raises(SnapshotNotLoaded, match=f"{told}.*{LOAD}"):
        loaded.verify(manifest, chunks=None, rng=rng())
    with pytest.raises(SnapshotNotLoaded, match=LOAD):
        loaded.require_loaded(manifest)
    assert not loaded.load(manifest, limit_fraction=1.0).already_loaded
    loaded.verify(manifest, chunks=None, rng=rng())


def test_each_chunk_is_drawn_at_some_time(loaded: ServingCopy, manifest: Manifest, client: redis.Redis) -> None:
    flip_a_byte(client, record("u77"))
    marker = read(client, MARKER)
    found = []
    for seed in range(20):
        client.set(MARKER, marker)
        try:
            loaded.verify(manifest, chunks=1, rng=rng(seed))
        except SnapshotNotLoaded:
            found.append(seed)
    assert 0 < len(found) < 20


def test_a_damaged_copy_is_not_used_again_but_loaded_and_what_was_wrong_is_told(
    loaded: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    assert loaded.load(manifest, limit_fraction=1.0).already_loaded
    flip_a_byte(client, record("u77"))
    report = loaded.load(manifest, limit_fraction=1.0)
    assert not report.already_loaded and "the record of user 'u77' has another byte at 100" in report.mended
    assert loaded.load(manifest, limit_fraction=1.0).already_loaded
    loaded.verify(manifest, chunks=None, rng=rng())


def test_a_damaged_copy_that_cannot_be_loaded_again_is_no_longer_called_loaded(
    loaded: ServingCopy, manifest: Manifest, version: Version, client: redis.Redis
) -> None:
    flip_a_byte(client, record("u3"))
    cut_short(version, sorted(manifest.parts[CANDIDATES].files)[1])
    with pytest.raises(SnapshotCorrupt):
        loaded.load(manifest, limit_fraction=1.0)
    with pytest.raises(SnapshotNotLoaded, match="is not in Redis"):
        loaded.require_loaded(manifest)


@pytest.mark.parametrize("part", [CANDIDATES, CHUNKS])
def test_a_cut_file_is_refused_before_a_key_is_written(
    part: str, copy: ServingCopy, manifest: Manifest, version: Version, client: redis.Redis
) -> None:
    cut_short(version, sorted(manifest.parts[part].files)[0])
    with pytest.raises(SnapshotCorrupt, match=r"its manifest promises .*make snapshot"):
        copy.load(manifest, limit_fraction=1.0)
    assert client.dbsize() == 0


def test_a_file_cut_after_the_load_is_no_fault_of_the_copy(
    loaded: ServingCopy, manifest: Manifest, version: Version
) -> None:
    cut_short(version, sorted(manifest.parts[CANDIDATES].files)[0])
    with pytest.raises(SnapshotCorrupt, match=r"part-0\.parquet cannot be read"):
        loaded.verify(manifest, chunks=None, rng=rng())
    loaded.require_loaded(manifest)


def test_what_is_changed_while_the_rest_is_written_is_found_by_the_read_back(
    copy: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    written = []

    def advance(users: int) -> None:
        written.append(users)
        if len(written) == 2:
            flip_a_byte(client, record("u3"))

    with pytest.raises(SnapshotNotLoaded, match=r"the record of user 'u3' has another byte at 100"):
        copy.load(manifest, limit_fraction=1.0, advance=advance)
    assert copy.marker() is None


def test_keys_that_another_build_left_under_the_version_are_deleted_by_the_load(
    copy: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    others = ["hg:{ranking.03}:v10:u:nobody", "hg:{ranking.03}:v1:pinned", "hg:{other.03}:v1:u:nobody"]
    for key in (*others, record("nobody"), keys.consumed(RANKING, VersionName("v1"), "nobody")):
        client.set(key, b"x")
    copy.load(manifest, limit_fraction=1.0)
    copy.verify(manifest, chunks=None, rng=rng())
    assert client.exists(*others) == 3
    assert not client.exists(record("nobody"), keys.consumed(RANKING, VersionName("v1"), "nobody"))


@pytest.mark.parametrize("field", ["digest", "records_root"])
def test_a_marker_of_another_build_is_not_believed(
    field: str, loaded: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    marker = json.loads(read(client, MARKER))
    client.set(MARKER, json.dumps({**marker, field: "0" * 64}))
    with pytest.raises(SnapshotNotLoaded, match="of another build"):
        loaded.require_loaded(manifest)
    assert not loaded.load(manifest, limit_fraction=1.0).already_loaded
    loaded.require_loaded(manifest)


KILLED_LOAD = """
import os, signal, sys
from infra.snapshots.connection import batch_client
from infra.snapshots.serving_copy import ServingCopy
from infra.snapshots.versions import SnapshotStore
version = SnapshotStore(sys.argv[1], "ranking").get("v1")
kill = lambda users: os.kill(os.getpid(), signal.SIGKILL)
ServingCopy(batch_client(sys.argv[2]), version).load(version.manifest(), limit_fraction=1.0, advance=kill)
"""


def test_a_load_that_was_killed_leaves_no_marker_and_is_completed_by_the_next(
    copy: ServingCopy, manifest: Manifest, client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_LOAD, str(tmp_path), redis_url], check=False)
    assert killed.returncode == -9
    assert 60 <= client.dbsize() < 180, "it was killed in the middle"
    with pytest.raises(SnapshotNotLoaded, match="is not in Redis"):
        copy.require_loaded(manifest)
    copy.load(manifest, limit_fraction=1.0)
    copy.verify(manifest, chunks=None, rng=rng())


def test_memory_that_fills_up_in_the_middle_leaves_no_marker(
    copy: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    def fill(users: int) -> None:
        client.config_set("maxmemory", 1)

    with pytest.raises(NotEnoughRoom, match=r"ran out of memory while ranking/v1 was loaded.*make gc"):
        copy.load(manifest, limit_fraction=1.0, advance=fill)
    assert copy.marker() is None
    client.config_set("maxmemory", 0)
    copy.load(manifest, limit_fraction=1.0)
    copy.verify(manifest, chunks=None, rng=rng())


def test_room_that_the_version_holds_already_is_not_asked_for_twice(client: redis.Redis, tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path), world=tiny_world(users=2000, items=1500), k=1000)
    manifest, copy = version.manifest(), ServingCopy(client, version)
    held = copy.load(manifest, limit_fraction=1.0).redis_bytes
    client.delete(MARKER)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + held // 2)
    copy.load(manifest, limit_fraction=1.0)
    copy.delete()
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + held // 2)
    with pytest.raises(NotEnoughRoom, match=r"needs \d+ MiB in Redis"):
        copy.load(manifest, limit_fraction=1.0)
    assert client.dbsize() == 0


def test_a_snapshot_of_an_earlier_release_is_not_loaded_and_the_mend_is_told(
    copy: ServingCopy, manifest: Manifest, client: redis.Redis
) -> None:
    old = replace(manifest, records_root="")
    client.set(MARKER, json.dumps({"digest": old.digest, "users": 120}))
    for attempt in (lambda: copy.load(old, limit_fraction=1.0), lambda: copy.require_loaded(old)):
        with pytest.raises(SnapshotNotLoaded, match=r"earlier release.*Build again: make snapshot"):
            attempt()


def test_an_array_that_does_not_fit_is_refused_even_where_it_was_sealed(tmp_path: Path, client: redis.Redis) -> None:
    world = tiny_world(users=4)
    rows = candidate_rows(world, k=10, score_map=ScoreMap(2.0))
    rows[2]["scores"] = b"\0" * 6
    version = build_tiny_snapshot(str(tmp_path), world=world, rows=rows)
    with pytest.raises(SnapshotCorrupt, match="the arrays of user 'u2' in .* do not fit together"):
        ServingCopy(client, version).load(version.manifest(), limit_fraction=1.0)


def test_a_copy_is_loaded_from_an_object_store_as_well(client: redis.Redis) -> None:
    root = "memory://serving-copy"
    build_tiny_snapshot(root)
    version = SnapshotStore(root, RANKING).get("v1")
    copy = ServingCopy(client, version)
    copy.load(version.manifest(), limit_fraction=1.0)
    assert copy.verify(version.manifest(), chunks=None, rng=rng()).users == 120
