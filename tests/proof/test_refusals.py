"""A full disk, a validation older than the data, an alias to a version that is gone: refused or served past; nothing changes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import State
from infra.snapshots import keys, tables
from tests.fixtures.full_disk import on_a_full_disk
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, tiny_world
from tests.proof.world import World

WORLD = tiny_world(users=4, items=40)


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """v1 is live, v2 validated and loaded; all of their parts are real."""
    stage = Stage(tmp_path / "store", redis_url)
    stage.client.flushall()
    for generation in range(2):
        version = build_tiny_snapshot(str(stage.root), world=WORLD, k=5, generation=generation)
        version.record(State.VALIDATED, actor="gate", reason="passed")
        stage.promotion.load(version, limit_fraction=1.0)
        if generation == 0:
            stage.promotion.flip(version, actor="build", reason="daily")
    yield stage
    stage.client.flushall()


def command(stage: Stage, *words: str, disk_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m infra.snapshots ...` on that stage."""
    variables = {"HEADGATE_STORE": str(stage.root), "HEADGATE_REDIS_URL": stage.redis_url}
    return on_a_full_disk("infra.snapshots", *words, variables=variables, file_bytes=disk_bytes)


def drafts(stage: Stage) -> list[Path]:
    return list(stage.root.rglob("*.draft"))


@pytest.mark.parametrize(
    "words", [("promote", "--version", "v2"), ("rollback", "--version", "v2", "--reason", "bad")], ids=lambda w: w[0]
)
def test_with_the_disk_full_no_flip_is_journalled_and_none_is_applied(stage: Stage, words: tuple[str, ...]) -> None:
    before = stage.promotion.flips.look()
    done = command(stage, *words, disk_bytes=100)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: NotEnoughRoom:"), done.stderr
    assert stage.promotion.flips.look() == before
    assert drafts(stage) == []
    assert command(stage, *words).returncode == 0
    alias = stage.promotion.alias.read()
    assert alias is not None and (alias.version, alias.generation) == ("v2", 2)


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_it(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [change_a_byte, cut_it, Path.unlink], ids=["a byte", "cut", "gone"])
@pytest.mark.parametrize("part", [tables.ITEM_TABLE, tables.POPULAR, tables.RANKER, tables.CHUNKS, tables.ITEM_VECTORS])
def test_a_part_that_changed_after_its_validation_does_not_go_live(
    stage: Stage, part: str, spoil: Callable[[Path], None]
) -> None:
    version = stage.promotion.store.get("v2")
    name = next(iter(version.manifest().parts[part].files))
    spoil(stage.root / RANKING / "snapshots" / "v2" / name)
    before = stage.promotion.flips.look()
    with pytest.raises(SnapshotCorrupt, match=name):
        stage.promotion.flip(version, actor="build", reason="daily")
    assert stage.promotion.flips.look() == before


def test_an_alias_to_a_version_that_is_gone_is_served_past_and_rolled_back_from(server: RedisProcess) -> None:
    world = World(server)
    for _ in range(2):
        version = world.build()
        version.record(State.VALIDATED, actor="gate", reason="passed")
        world.operator().load(version, limit_fraction=1.0)
        world.operator().flip(version, actor="build", reason="daily")
        world.look(world.readers[0])
    anew, served = world.readers[1], world.readers[0]
    world.client.hset(keys.alias(RANKING), mapping={"version": "predictions_v9", "generation": "3", "digest": "9" * 64})
    for reader in (served, anew):
        world.look(reader)
        assert "There is no snapshot ranking/v9" in reader.live.problem
    assert served.live.current is not None and served.live.current.alias.version == "v2"
    world.begin(served, user="1")
    assert world.end(served) == []
    _, now = world.operator().rollback(VersionName("v1"), actor="on call", reason="bad", limit_fraction=1.0)
    assert now.generation > 3
    for reader in (served, anew):
        world.look(reader)
        assert reader.live.current is not None and reader.live.current.alias == now
    world.close()
