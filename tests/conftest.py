"""What all tests share: a real Redis of their own, and the record of a run of all proofs in full."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.bench.report import BENCH_FOLDER, Machine, commit
from tests.fixtures.kafka import kafka, own_kafka
from tests.fixtures.proof import FULL
from tests.fixtures.redis_server import own_redis, redis_url

__all__ = ["kafka", "own_kafka", "own_redis", "redis_url"]

_outcomes: dict[str, dict[str, object]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember how each proof ended and how long it took."""
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = {"outcome": report.outcome, "seconds": round(report.duration, 3)}


def pytest_sessionfinish() -> None:
    """`make prove` leaves .bench/prove.json."""
    if not FULL:
        return
    BENCH_FOLDER.mkdir(exist_ok=True)
    ended = [str(proof["outcome"]) for proof in _outcomes.values()]
    record = {
        "name": "prove",
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {name: getattr(Machine.here(), name) for name in ("cpus", "model", "mem_gb")},
        "size": "full",
        "counts": {outcome: ended.count(outcome) for outcome in ("passed", "failed", "skipped")},
        "proofs": _outcomes,
    }
    (BENCH_FOLDER / "prove.json").write_text(json.dumps(record, indent=1) + "\n")
