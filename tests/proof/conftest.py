"""What the proofs share: a Redis that can be killed and started again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.redis_server import RedisProcess


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    """A Redis of the test's own; what it was told is on disk."""
    server = RedisProcess(Path(tempfile.mkdtemp(prefix="headgate-redis-")), append_only=True)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)
