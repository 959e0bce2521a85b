"""A real process, killed with SIGKILL before each of its steps in turn: nothing half-done shows, and a rerun completes it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import redis

from infra.config.settings import settings
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import State
from infra.snapshots import __main__ as commands
from infra.snapshots import keys
from infra.snapshots.storage import Storage
from tests.fixtures.mortal import Life
from tests.fixtures.proof import sized
from tests.fixtures.redis_memory import Memory, put_back, remembered
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import RANKING
from tests.proof.world import World

EVERY = sized(2, full=1)
"""Each step, or each second one; the first and the last are always among them."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


def _command(words: list[str], environment: dict[str, str], ends_before: int | None, said: Connection) -> None:
    """In a process of its own: the command, killed before one of its steps. Says how many it took where it came to its end."""
    os.environ.update(environment)
    settings.cache_clear()
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.dup2(sink, sys.stderr.fileno())
    life = Life(ends_before, end=lambda: os.kill(os.getpid(), signal.SIGKILL))

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **named: Any) -> Any:
            life.step()
            return real(*args, **named)

        return stepping

    with (
        patch.object(redis.Redis, "execute_command", counted(redis.Redis.execute_command)),
        patch.object(Storage, "create", counted(Storage.create)),
    ):
        commands.app(words, standalone_mode=False)
    said.send(life.taken)


def run(world: World, words: list[str], *, ends_before: int | None = None) -> int | None:
    """The steps that the command took; None where it was killed."""
    heard, said = _FORKS.Pipe(duplex=False)
    environment = {"HEADGATE_STORE": world.root, "HEADGATE_REDIS_URL": world.server.url}
    process = _FORKS.Process(target=_command, args=(words, environment, ends_before, said))
    process.start()
    said.close()
    process.join(timeout=60)
    killed = process.exitcode == -signal.SIGKILL
    assert killed or process.exitcode == 0, f"{words} ended with {process.exitcode}"
    return None if killed else int(heard.recv())


@dataclass
class Scene:
    """v1, v2 and v3 were live, v3 is; v4 is loaded, v5 only validated. It can be put back."""

    world: World
    memory: Memory
    saved: Path

    @property
    def _changing(self) -> list[Path]:
        return [Path("journal"), *(Path("snapshots", name, "states") for name in self.world.versions)]

    def put_back(self) -> None:
        put_back(self.world.client, self.memory)
        root = Path(self.world.root, RANKING)
        for folder in self._changing:
            shutil.rmtree(root / folder)
            shutil.copytree(self.saved / folder, root / folder)

    def save(self) -> None:
        self.memory = remembered(self.world.client)
        for folder in self._changing:
            shutil.copytree(Path(self.world.root, RANKING) / folder, self.saved / folder, dirs_exist_ok=True)

    def facts(self) -> dict[str, object]:
        """All that anybody may see of it, but for times, names and sizes."""
        world = self.world
        alias, client = world.alias(), world.client
        data = {name: client.get(name) for name in client.scan_iter(match="hg:*", count=1000)}
        markers = {
            name: json.loads(value)["digest"] for name, value in data.items() if value and name.endswith(b":loaded")
        }
        return {
            "alias": alias and (alias.version, alias.generation, alias.digest),
            "path": world.path(),
            "states": {name: world.store.get(name).state() for name in world.versions},
            "data": data | markers,
        }


@pytest.fixture
def scene(server: RedisProcess, tmp_path: Path) -> Iterator[Scene]:
    world = World(server)
    scene = Scene(world, {}, tmp_path / "saved")
    for number in range(1, 6):
        version = world.build()
        version.record(State.VALIDATED, actor="gate", reason="passed")
        if number < 5:
            world.operator().load(version, limit_fraction=1.0)
        if number < 4:
            world.operator().flip(version, actor="build", reason="daily")
    yield scene
    world.close()


def as_it_is(world: World) -> None:
    """Nothing else happened."""


def first_was_collected(world: World) -> None:
    """v1 left Redis."""
    world.operator().copy_of(world.store.get("v1")).delete()


def redis_is_empty(world: World) -> None:
    """It restarted and had kept nothing."""
    world.client.flushall()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("words", "prepare", "steps"),
    [
        (["load", "--version", "v5"], as_it_is, 12),
        (["promote", "--version", "v4", "--force"], as_it_is, 12),
        (["rollback", "--version", "v2", "--reason", "bad"], as_it_is, 12),
        (["rollback", "--version", "v1", "--reason", "bad"], first_was_collected, 16),
        (["gc", "--keep", "2"], as_it_is, 8),
        (["reload"], redis_is_empty, 20),
    ],
    ids=["load", "promote", "rollback", "rollback-and-load", "gc", "reload"],
)
def test_a_command_killed_before_any_of_its_steps_shows_nothing_half_done_and_may_be_repeated(
    scene: Scene, words: list[str], prepare: Callable[[World], None], steps: int
) -> None:
    """steps: it takes at least so many."""
    world = scene.world
    prepare(world)
    scene.save()
    before = scene.facts()
    taken = run(world, words)
    after = scene.facts()
    assert taken is not None and taken >= steps
    for step in sorted({*range(0, taken, EVERY), taken - 1}):
        scene.put_back()
        used = world.in_use() & world.complete()
        if run(world, words, ends_before=step) is not None:
            continue  # its threads took one less this time
        seen = scene.facts()
        assert seen["alias"] in (before["alias"], after["alias"]), step
        assert seen["path"] in (before["path"], after["path"]), step
        assert world.marked() == world.complete(), f"before step {step}: loaded by its marker, and not as sealed"
        assert used <= world.complete(), f"before step {step}: in use, and gone"
        assert run(world, words) is not None
        assert scene.facts() == after, f"before step {step}"


def test_what_a_killed_load_left_is_collected_once_nobody_holds_it(scene: Scene) -> None:
    world = scene.world
    run(world, ["load", "--version", "v5"], ends_before=9)
    left = list(world.client.scan_iter(match=keys.version_pattern(RANKING, VersionName("v5"))))
    assert left and VersionName("v5") not in world.marked()
    world.store.get("v5").record(State.REJECTED, actor="gate", reason="judged again")
    world.client.delete(keys.leases(RANKING))  # as it lapses in a quarter of an hour
    run(world, ["gc"])
    assert list(world.client.scan_iter(match=keys.version_pattern(RANKING, VersionName("v5")))) == []
