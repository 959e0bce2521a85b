"""python -m infra.snapshots: one JSON result last on stdout, one line for an error, tables that people can read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from infra.config import console
from infra.config.settings import CHECKOUT, settings
from infra.contracts.snapshots import State
from infra.snapshots import __main__ as commands
from infra.snapshots.connection import batch_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.redis_server import RedisProcess, free_port
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, object]:
        fields: dict[str, object] = json.loads(self.stdout.splitlines()[-1])
        return fields

    @property
    def error(self) -> str:
        """The one line of the error; everything else on stderr was said before it."""
        assert self.code == 1, self
        assert "Traceback" not in self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1 and self.stderr.splitlines()[-1] == lines[0]
        return lines[0]


class Operator:
    """Somebody at a shell, in one process with the test."""

    def __init__(
        self, store: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.store = store
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.set(HEADGATE_STORE=str(store), HEADGATE_REDIS_URL=url, COLUMNS="80")

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        settings.cache_clear()

    def __call__(self, *words: str) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["infra.snapshots", *words])
        self._capsys.readouterr()
        code = 0
        try:
            console.run(commands.app)
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *self._capsys.readouterr())

    def build(self, *, generation: int = 0, state: State = State.VALIDATED) -> Version:
        version = build_tiny_snapshot(str(self.store), generation=generation)
        if state is not State.STAGED:
            version.record(state, actor="gate", reason="17 checks passed")
        return version

    def live(self, count: int) -> None:
        """That many versions, built and put live one after the other."""
        for number in range(count):
            name = self.build(generation=number).version
            assert self("load", "--version", name).code == 0
            assert self("flip", "--version", name, "--reason", f"build {number + 1}").code == 0


@pytest.fixture
def headgate(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Operator]:
    client = batch_client(redis_url)
    client.flushall()
    yield Operator(tmp_path / "store", redis_url, monkeypatch, capsys)
    client.flushall()
    client.close()
    monkeypatch.undo()
    settings.cache_clear()


def test_a_build_is_opened_loaded_and_flipped_and_each_command_says_so_in_json(headgate: Operator) -> None:
    assert headgate("open", "--actor", "ada").result == {"version": "v1", "generation": 0}
    assert headgate.build().version == "v2"
    loaded = headgate("load", "--version", "predictions_v2").result
    assert (loaded["version"], loaded["users"], loaded["already_loaded"]) == ("v2", 120, False)
    flipped = headgate("flip", "--version", "v2", "--actor", "ada", "--reason", "looks good")
    assert (flipped.result["moved"], flipped.result["generation"], flipped.result["before"]) == (True, 1, None)
    assert re.search(
        r"ranking: no version is live\n     -> v2 live since .*, generation 1, by ada: looks good", flipped.stderr
    )


def test_every_command_may_be_repeated(headgate: Operator) -> None:
    headgate.live(1)
    again = headgate("load", "--version", "v1")
    assert again.result["already_loaded"] is True
    assert "120 of 120 done" in again.stderr and "was loaded already" in again.stderr
    flip = headgate("flip", "--version", "v1")
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
    error = headgate("flip", "--version", late).error
    assert error.startswith(
        "error: FlipFenced: ranking: the alias is at generation 3 (predictions_v1), this flip to v3 began at"
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


def test_the_status_shows_every_version_and_fits_80_columns(headgate: Operator) -> None:
    headgate.live(2)
    headgate.build(state=State.STAGED)
    headgate("open")
    shown = headgate("status")
    table = [line.split() for line in shown.stderr.splitlines() if line.split()[:1] and line.split()[0].startswith("v")]
    assert [row[0] for row in table] == ["version", "v4", "v3", "v2", "v1"]
    assert [row[1] for row in table[1:]] == ["BUILDING", "STAGED", "LIVE", "RETIRED"]
    assert table[3][-2:] == ["yes", "LIVE"] and table[4][-2:] == ["yes", "-"]
    assert max(len(line) for line in shown.stderr.splitlines()[1:]) <= 80
    assert shown.stderr.startswith("ranking: v2 live since ")
    versions = shown.result["versions"]
    assert isinstance(versions, list) and [row["version"] for row in versions] == ["v1", "v2", "v3", "v4"]


def test_the_status_of_nothing_tells_how_to_begin(headgate: Operator) -> None:
    shown = headgate("status")
    assert shown.stderr == "ranking: no version is live\nno version has been built yet. Run: make snapshot\n"
    nothing: dict[str, object] = {"live": None, "journal": None, "generation": 0, "problem": "", "versions": []}
    assert shown.result == {"application": "ranking", **nothing}


def test_json_alone_is_json_alone(headgate: Operator) -> None:
    headgate.live(2)
    for words in ("status", "list", "history", "show v2", "diff v1 v2", "verify", "reload", "gc", "freshness",
                  "load --version v1", "promote --version v2", "rollback --reason r"):  # fmt: skip
        command, *more = words.split()
        said = headgate(command, *more, "--json")
        assert said.code == 0, said
        assert said.stderr == "" and said.stdout.count("\n") == 1, command


def test_the_history_tells_who_did_what_and_why_and_a_reason_is_only_text(headgate: Operator) -> None:
    headgate.live(3)
    assert headgate("history").stderr.startswith("ranking: v3 is live; a rollback goes to v2, then v1\n")
    headgate(
        "rollback",
        "--version",
        "v1",
        "--actor",
        "airflow:ada",
        "--reason",
        "[bold]duplicates[/bold] in the " + "first " * 9 + "places",
    )
    told = headgate("history")
    lines = told.stderr.splitlines()
    assert lines[0] == "ranking: v1 is live; a rollback goes to nothing: there is none before it"
    assert max(len(line) for line in lines) <= 80
    assert "airflow:ada" in told.stderr and "[bold]" in told.stderr
    dated = [line.split() for line in lines if re.match(r" *\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line)]
    assert [row[2:5] for row in dated[:4]] == [
        ["1", "v1", "flip"],
        ["2", "v2", "flip"],
        ["3", "v3", "flip"],
        ["4", "v1", "rollback"],
    ]
    assert all(re.fullmatch(r"v[123]", row[2]) for row in dated[4:])
    records = told.result["records"]
    assert isinstance(records, list)
    assert [(row["version"], row["state"]) for row in records][-2:] == [("v1", "LIVE"), ("v3", "ROLLED_BACK")]
    only = headgate("history", "--version", "v2", "--json").result["records"]
    assert isinstance(only, list) and {row["version"] for row in only} == {"v2"}


def test_the_list_has_sizes_and_show_tells_all_of_one_version(headgate: Operator) -> None:
    headgate.live(2)
    listed = headgate("list")
    rows = listed.result["versions"]
    assert isinstance(rows, list) and [row["version"] for row in rows] == ["v1", "v2"]
    assert all(row["bytes"] > 1000 and row["loaded"] for row in rows)
    assert max(len(line) for line in listed.stderr.splitlines()) <= 80
    shown = headgate("show", "predictions_v2")
    assert shown.result["state"] == "LIVE" and shown.result["live"] is True
    states = shown.result["states"]
    assert isinstance(states, list) and [row["state"] for row in states] == ["STAGED", "VALIDATED", "LIVE"]
    assert "17 checks passed" in shown.stderr and "candidates" in shown.stderr
    assert headgate("show", "v9").error.startswith("error: SnapshotNotFound: There is no snapshot ranking/v9")


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


def test_verify_finds_a_changed_record_and_a_changed_file(headgate: Operator, redis_url: str) -> None:
    headgate.live(2)
    fine = headgate("verify")
    verified = fine.result["verified"]
    assert isinstance(verified, dict) and list(verified) == ["v1", "v2"]
    with batch_client(redis_url) as client:
        client.set("hg:ranking:v2:u:u7", "something else")
    assert headgate("verify").error.startswith("error: SnapshotNotLoaded: ranking/v2")
    assert headgate("load", "--version", "v2").code == 0
    assert headgate("verify").code == 0
    file = next((headgate.store / "ranking/snapshots/v1").rglob("candidates/part-1.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert headgate("verify", "--version", "v1").error.startswith("error: SnapshotCorrupt: ranking/v1")


def test_verify_is_red_where_the_live_copy_is_not_in_redis(headgate: Operator, redis_url: str) -> None:
    headgate.live(1)
    with batch_client(redis_url) as client:
        client.delete("hg:ranking:v1:loaded")
    assert headgate("verify").error == (
        "error: SnapshotNotLoaded: ranking/v1 is live and not in Redis. Run: python -m infra.snapshots reload"
    )


def test_the_difference_of_two_versions_is_a_table(headgate: Operator) -> None:
    headgate.live(2)
    told = headgate("diff", "v1", "v2")
    assert re.search(r"overlap@10 +100\.0%", told.stderr)
    assert told.result["overlap_mean"] == {"10": 1.0, "100": 1.0}
    assert max(len(line) for line in told.stderr.splitlines()) <= 80


def test_garbage_collection_says_what_it_deleted_and_keeps_two_at_least(headgate: Operator) -> None:
    headgate.live(4)
    assert headgate("gc", "--keep", "1").code == 2
    said = headgate("gc", "--keep", "2")
    assert said.result["loaded"] == ["v3", "v4"]
    assert re.search(r"ranking/v1: \d{3} keys deleted from Redis", said.stderr)
    assert headgate("gc").result["deleted"] == {}


def test_freshness_is_red_without_a_live_version_and_when_it_is_too_old(headgate: Operator) -> None:
    nothing = headgate("freshness")
    assert nothing.error == "error: SnapshotNotFound: ranking has no live snapshot. Run: make snapshot"
    assert nothing.result["fresh"] is False
    headgate.live(1)
    fresh = headgate("freshness")
    assert (fresh.code, fresh.result["fresh"], fresh.result["version"]) == (0, True, "v1")
    headgate.set(HEADGATE_FRESHNESS_SLO_HOURS="0.0000001")
    old = headgate("freshness")
    assert "the freshness SLO is" in old.error and "snapshot_refresh_ranking" in old.error
    assert old.result["fresh"] is False


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
