"""conftest: one good world for all tests of the gate, copied for each that spoils it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fixtures.tiny_snapshot import TinyWorld, build_tiny_snapshot, tiny_world
from tests.unit.validation.workbench import Workbench, open_workbench, put_live


@pytest.fixture(scope="session")
def world() -> TinyWorld:
    return tiny_world()


@pytest.fixture(scope="session")
def good_store(tmp_path_factory: pytest.TempPathFactory, world: TinyWorld) -> Path:
    """v1 is live by the records, v2 waits for its judgement; never written to afterwards."""
    root = tmp_path_factory.mktemp("good-store")
    put_live(build_tiny_snapshot(str(root), world=world))
    build_tiny_snapshot(str(root), world=world, staged=True)
    return root


@pytest.fixture
def bench(good_store: Path, tmp_path: Path, world: TinyWorld) -> Workbench:
    """v2 of a copy of the good store, to spoil and to judge."""
    root = tmp_path / "store"
    shutil.copytree(good_store, root)
    return open_workbench(root, "v2", world)
