"""The commands that only look: tables that people can read, JSON for machines, and red where something is wrong."""

from __future__ import annotations

import re

from infra.contracts.ids import VersionName
from infra.contracts.snapshots import State
from infra.snapshots import keys
from infra.snapshots.connection import batch_client
from tests.fixtures.tiny_snapshot import RANKING
from tests.unit.infra.snapshots.shell_operator import Operator


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


def test_verify_finds_a_changed_record_and_a_changed_file(headgate: Operator, redis_url: str) -> None:
    headgate.live(2)
    fine = headgate("verify")
    verified = fine.result["verified"]
    assert isinstance(verified, dict) and list(verified) == ["v1", "v2"]
    with batch_client(redis_url) as client:
        client.set(keys.user_record(RANKING, VersionName("v2"), "u7"), "something else")
    assert headgate("verify").error.startswith("error: SnapshotNotLoaded: ranking/v2")
    assert headgate("load", "--version", "v2").code == 0
    assert headgate("verify").code == 0
    file = next((headgate.store / "ranking/snapshots/v1").rglob("candidates/part-1.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert headgate("verify", "--version", "v1").error.startswith("error: SnapshotCorrupt: ranking/v1")


def test_verify_is_red_where_the_live_copy_is_not_in_redis(headgate: Operator, redis_url: str) -> None:
    headgate.live(1)
    with batch_client(redis_url) as client:
        client.delete(keys.load_marker(RANKING, VersionName("v1")))
    assert headgate("verify").error == (
        "error: SnapshotNotLoaded: ranking/v1 is live and not in Redis. Run: python -m infra.snapshots reload"
    )


def test_the_difference_of_two_versions_is_a_table(headgate: Operator) -> None:
    headgate.live(2)
    told = headgate("diff", "v1", "v2")
    assert re.search(r"overlap@10 +100\.0%", told.stderr)
    assert told.result["overlap_mean"] == {"10": 1.0, "100": 1.0}
    assert max(len(line) for line in told.stderr.splitlines()) <= 80


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
