"""python -m infra.snapshots: one JSON result last on stdout, one line for an error; every command may be repeated."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import redis

from infra.config.settings import CHECKOUT
from infra.contracts.snapshots import State
from infra.snapshots.connection import batch_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.redis_server import RedisProcess, free_port
from tests.fixtures.tiny_snapshot import RANKING
from tests.unit.infra.snapshots.shell_operator import Operator


def test_a_build_is_opened_loaded_and_flipped_and_each_command_says_so_in_json(headgate: Operator) -> None:
    assert headgate("open", "--actor", "ada").result == {"version": "v1", "generation": 0}
    assert headgate.build().version == "v2"
    loaded = headgate("load", "--version", "predictions_v2").result
    assert (loaded["version"], loaded["users"], loaded["already_loaded"]) == ("v2", 120, False)
    flipped = headgate("promote", "--version", "v2", "--actor", "ada", "--reason", "looks good")
    assert (flipped.result["moved"], flipped.result["generation"], flipped.result["before"]) == (True, 1, None)
    assert re.search(
        r"ranking: no version is live\n     -> v2 live since .*, generation 1, by ada: looks good", flipped.stderr
    )


def test_every_command_may_be_repeated(headgate: Operator) -> None:
    headgate.live(1)
    again = headgate("load", "--version", "v1")
    assert again.result["already_loaded"] is True
    assert "120 of 120 done" in again.stderr and "was loaded already" in again.stderr
    flip = headgate("promote", "--version", "v1")
    assert (flip.result["moved"], flip.result["generation"]) == (False, 1)
    assert "-> nothing to change" in flip.stderr


def test_a_rollback_goes_to_the_version_before_and_a_second_one_further_back(headgate: Operator) -> None:
    headgate.live(3)
    first = headgate("rollback", "--reason", "too many duplicates")
    assert (first.result["version"], first.result["generation"]) == ("v2", 4)
    assert "v3 live since" in first.stderr and "-> v2 live since" in first.stderr
    second = headgate("rollback", "--reason", "still bad")
    assert second.result["version"] == "v1"
    assert headgate("rollback", "--reason", "and again").error == (
        "error: NothingToRollBackTo: ranking has no version before v1. Name one with: make rollback VERSION=v3"
    )
    forward = headgate("rollback", "--version", "v3", "--reason", "it was the client")
    assert (forward.result["version"], forward.result["generation"]) == ("v3", 6)


def test_a_rollback_tells_how_long_it_took_and_takes_seconds_at_most(headgate: Operator) -> None:
    headgate.live(2)
    seconds = headgate("rollback", "--reason", "slow").result["seconds"]
    assert isinstance(seconds, float) and 0 < seconds < 5


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--version", "v9"], "SnapshotNotFound: There is no snapshot ranking/v9; the newest are: v1, v2."),
        (
            ["--version", "9"],
            "InvalidRequest: '9' is not a snapshot version; wanted a form like v12 or predictions_v12.",
        ),
        (
            ["--version", "v2"],
            "SnapshotNotValidated: ranking/v2 is STAGED; wanted VALIDATED. Run: make validate VERSION=v2",
        ),
        (
            ["--reason", " "],
            "InvalidRequest: The reason is empty; wanted a few words for the records. Use --reason '...'",
        ),
        (["--application", "cats"], "UnknownApplication: There is no application 'cats'; there are: ranking."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_refused_rollback_says_why_in_one_line_and_changes_nothing(
    headgate: Operator, words: list[str], error: str
) -> None:
    headgate.live(1)
    headgate.build(state=State.STAGED)
    assert headgate("rollback", "--reason", "r", *words).error == f"error: {error}"
    assert headgate("freshness").result["version"] == "v1"


def test_a_flip_that_a_rollback_overtook_is_fenced_and_the_error_has_the_command_that_forces_it(
    headgate: Operator,
) -> None:
    headgate.live(2)
    late = headgate.build(generation=2).version
    headgate("load", "--version", late)
    headgate("rollback", "--reason", "v2 is bad")
    error = headgate("promote", "--version", late).error
    assert error.startswith(
        "error: FlipFenced: ranking: the alias is at generation 3 (predictions_v1), the build of v3 began at"
    )
    command = error.partition("python -m infra.snapshots ")[2]
    assert headgate(*command.split()).result["version"] == "v3"


def test_a_flip_whose_answer_was_lost_is_no_fence_for_its_own_repetition(headgate: Operator, redis_url: str) -> None:
    headgate.live(1)
    with batch_client(redis_url) as client:
        alias = Promotion(SnapshotStore(str(headgate.store), RANKING), client).alias
        live = alias.read()
        assert live is not None
        assert alias.move(live, seen=None) == live


def test_a_redis_that_forgot_is_told_by_status_and_mended_by_reload(headgate: Operator, redis_url: str) -> None:
    headgate.live(3)
    with batch_client(redis_url) as client:
        client.flushall()
    told = headgate("status")
    assert told.result["live"] is None
    assert "the journal says predictions_v3 at generation 3, the alias says nothing" in told.stderr
    assert "python -m infra.snapshots reload" in headgate("verify", "--version", "v1").error
    mended = headgate("reload")
    assert (mended.code, mended.result["moved"]) == (0, True)
    assert mended.result["live"] == headgate("status").result["live"]
    loads = mended.result["loads"]
    assert isinstance(loads, dict) and list(loads) == ["v3", "v2"]
    assert all(row["users"] == 120 and row["users_per_s"] > 0 for row in loads.values())
    assert re.search(r"ranking/v3: 120 users in \d+\.\d s, [\d,]+ a second", mended.stderr)
    assert headgate("status").result["problem"] == ""
    again = headgate("reload")
    assert again.result["moved"] is False and "ranking/v3: was there" in again.stderr


def test_garbage_collection_says_what_it_deleted_and_keeps_two_at_least(headgate: Operator) -> None:
    headgate.live(4)
    assert headgate("gc", "--keep", "1").code == 2
    said = headgate("gc", "--keep", "2")
    assert said.result["loaded"] == ["v3", "v4"]
    assert re.search(r"ranking/v1: \d{3} keys deleted from Redis", said.stderr)
    assert headgate("gc").result["deleted"] == {}


def test_a_load_that_would_not_fit_is_refused_with_the_mend(headgate: Operator, redis_url: str) -> None:
    name = headgate.build().version
    with batch_client(redis_url) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 40_000)
        try:
            error = headgate("load", "--version", name).error
        finally:
            client.config_set("maxmemory", 0)
    assert re.match(
        r"error: NotEnoughRoom: ranking/v1 needs \d+ MiB in Redis; \d+ MiB are free below 90% of its", error
    )
    assert "Run: make gc" in error


def test_without_redis_every_command_says_so_soon(headgate: Operator) -> None:
    port = free_port()
    headgate.set(HEADGATE_REDIS_URL=f"redis://:secret@127.0.0.1:{port}/0")
    for words in (["open"], ["status"], ["history"], ["gc"], ["freshness"], ["rollback", "--reason", "r"]):
        error = headgate(*words).error
        assert error.startswith(f"error: DependencyUnavailable: Redis at 127.0.0.1:{port} does not answer"), words
        assert error.endswith("Run: make up, or set HEADGATE_REDIS_URL.")
        assert "secret" not in error


def test_a_url_that_is_none_is_refused_without_showing_it(headgate: Operator) -> None:
    headgate.set(HEADGATE_REDIS_URL="postgres://user:secret@host/0")
    error = headgate("status").error
    assert error.startswith("error: OperatorError: HEADGATE_REDIS_URL is not the URL of a Redis.")
    assert "secret" not in error


def test_a_redis_that_hangs_is_found_out_within_seconds(headgate: Operator, own_redis: RedisProcess) -> None:
    headgate.set(HEADGATE_REDIS_URL=own_redis.url)
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        error = headgate("status").error
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    assert "does not answer" in error
    assert time.monotonic() - began < 20, "it waited as long as a bulk load may"


def test_a_redis_that_fails_in_the_middle_is_an_error_that_may_be_repeated(
    headgate: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Promotion) -> list[str]:
        raise redis.exceptions.ConnectionError("connection reset")

    monkeypatch.setattr(Promotion, "loaded", away)
    error = headgate("status").error
    assert "failed in the middle of the command (ConnectionError: connection reset)" in error
    assert "every one of them may be repeated" in error


def refused(headgate: Operator) -> str:
    """A version that the gate refused because of its overlap."""
    version = headgate.build(state=State.REJECTED)
    row = {
        "verdict": "refused",
        "summary": "1 failed (overlap)",
        "judged_at": "2024-06-01T00:00:00+00:00",
        "digest": version.manifest().digest,
        "findings": [{"check": "overlap", "status": "failed"}],
    }
    version.storage.create("validation/20240601T000000.000000Z-report.json", json.dumps(row).encode())
    return version.version


def test_a_promotion_past_failed_checks_loads_flips_and_is_in_every_record(headgate: Operator) -> None:
    headgate.live(2)
    headgate.set(HEADGATE_BREAK_GLASS_USERS="airflow:ada")
    version, why = refused(headgate), "the sale begins at nine; agreed with bea"
    words = ["promote", "--version", version, "--break-glass", "--actor", "airflow:ada", "--reason", why]
    done = headgate(*words)
    assert (done.result["version"], done.result["generation"]) == (version, 3)
    assert done.result["passed_checks"] == ["overlap"]
    assert "airflow:ada passes the failed check overlap: users see other lists" in done.stderr
    told = headgate("history", "--json").result
    flips, records = told["flips"], told["records"]
    assert isinstance(flips, list) and isinstance(records, list)
    assert (flips[-1]["actor"], flips[-1]["reason"]) == ("airflow:ada", f"break-glass past overlap: {why}")
    passed = [row for row in records if row["version"] == version and row["state"] == "VALIDATED"]
    assert [row["actor"] for row in passed] == ["airflow:ada"]
    assert passed[0]["reason"].startswith(f"break-glass past overlap: {why}; report ")
    assert headgate(*words).result["moved"] is False, "it may be repeated"


def test_failed_checks_are_passed_by_no_command_without_permission(headgate: Operator) -> None:
    headgate.live(1)
    version, why = refused(headgate), "the sale begins at nine; agreed with bea"
    for command in ("load", "promote"):
        words = [command, "--version", version, "--break-glass", "--actor", "ada", "--reason", why]
        assert headgate(*words).error.startswith(f"error: NotPermitted: ada may not promote ranking/{version} past")
    forced = headgate("promote", "--version", version, "--force").error
    assert forced.startswith(f"error: SnapshotNotValidated: ranking/{version} is REJECTED")
    assert headgate("freshness").result["version"] == "v1"


def test_a_snapshot_that_somebody_declined_may_still_be_promoted_on_purpose(headgate: Operator) -> None:
    version = headgate.build().version
    said = headgate("decline", "--version", version, "--actor", "bea", "--reason", "the lists look odd")
    assert (said.result["state"], said.result["actor"]) == ("VALIDATED", "bea")
    assert headgate("load", "--version", version).code == 0
    assert headgate("promote", "--version", version, "--reason", "they are right").result["moved"] is True


def test_the_module_is_a_command(headgate: Operator) -> None:
    words = [sys.executable, "-m", "infra.snapshots", "rollback", "--reason", "nothing is there"]
    done = subprocess.run(words, cwd=CHECKOUT, env=os.environ.copy(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: NothingToRollBackTo: ranking has no version before the first. Name one with: make rollback VERSION=v3\n"
    )
