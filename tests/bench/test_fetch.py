"""The timing of the reader by itself reads whole records, and says so where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.fetch import fetch
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage


def test_it_reads_whole_records_of_the_live_snapshot(own_redis: RedisProcess, tmp_path: Path) -> None:
    stage = Stage(tmp_path, own_redis.url)
    with pytest.raises(AssertionError, match="nothing is live"):
        fetch(tmp_path, own_redis.url, users=100, top=100, seconds=0.2)
    stage.flip_live(k=100)
    seen = fetch(tmp_path, own_redis.url, users=100, top=100, seconds=0.2)
    assert 0 < seen.p50_ms <= seen.p99_ms and seen.per_s > 0
    with pytest.raises(AssertionError, match="has not 99 candidates"):
        fetch(tmp_path, own_redis.url, users=100, top=99, seconds=0.2)
