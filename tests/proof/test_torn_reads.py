"""Under flips without end no reader gets a record of another version, or none; the same harness finds what is broken on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess
from tests.proof.torture import Torture, delete_at_once, total

FLIPS = sized(60, full=1_000)
READS = sized(20_000, full=1_000_000)

pytestmark = pytest.mark.timeout(sized(1300, full=7200))


@pytest.fixture
def torture(server: RedisProcess, tmp_path: Path) -> Iterator[Torture]:
    torture = Torture(tmp_path, server.url)
    torture.prepare()
    yield torture
    torture.close()


def test_no_read_is_torn_or_missing_under_flips_and_rollbacks(torture: Torture) -> None:
    with torture.readers(processes=sized(2, full=4)).reading() as readers:
        torture.until(lambda run: run.flips + run.rollbacks >= FLIPS and total(readers)["reads"] >= READS)
    found = total(readers)
    assert (found["torn"], found["missing"], found["backwards"]) == (0, 0, 0), found
    assert found["reads"] >= READS and torture.rollbacks >= FLIPS // 3
    assert torture.canaries > FLIPS // 10 and found["of_canary"] > 0
    assert torture.deleted > FLIPS // 4, "copies were deleted all the while"


def test_an_alias_that_is_read_again_within_a_request_is_found_out(torture: Torture) -> None:
    with torture.readers(processes=2, rereads=True).reading() as readers:
        torture.until(lambda _: total(readers)["torn"] > 0)


def test_a_copy_that_is_deleted_at_once_is_found_out(torture: Torture) -> None:
    torture.delete = delete_at_once
    with torture.readers(processes=2).reading() as readers:
        torture.until(lambda _: total(readers)["missing"] > 0)
