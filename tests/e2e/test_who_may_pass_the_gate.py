"""A snapshot that the gate refused goes live through Airflow by the hand of one whom the operator has named, and of nobody else."""

from __future__ import annotations

import json

from infra.contracts.candidates import ScoreMap
from tests.e2e.conftest import NAMED, PROMOTE, Build, Platform
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, candidate_rows, tiny_world

REASON = "the sale begins at nine; agreed with the team"


def test_one_who_is_named_promotes_past_a_failed_check_and_all_records_say_so(
    platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    before, generation = platform.live()
    assert two_builds, "something is live to go back to"
    all_but_one = candidate_rows(tiny_world(), k=100, score_map=ScoreMap(scale=2.0))[1:]
    refused = build_tiny_snapshot(f"{platform.home}/store", rows=all_but_one, generation=generation).version
    gate = platform.command("validation.gate", "--application", "ranking", "--version", refused)
    assert gate.returncode == 1 and "coverage: seen 1 of 120 users" in gate.stderr

    fields = {"version": refused, "reason": REASON, "break_glass": True}
    with platform.as_user(NAMED) as http:
        body = {"logical_date": None, "conf": fields}
        run = http.post(f"/api/v2/dags/{PROMOTE}/dagRuns", json=body).raise_for_status().json()
    assert platform.ended(PROMOTE, run["dag_run_id"]) == "success", platform.said(PROMOTE, run["dag_run_id"])
    assert platform.live() == (refused, generation + 1)
    platform.seconds_until_served(f"predictions_{refused}")

    history = json.loads(platform.command("infra.snapshots", "history", "--json").stdout)
    flip = history["flips"][-1]
    states = [record for record in history["records"] if record["version"] == refused]
    assert [record["state"] for record in states] == ["STAGED", "REJECTED", "VALIDATED", "LIVE"]
    for told in (flip, states[-2], states[-1]):
        assert told["actor"] == f"airflow:{NAMED}"
        assert f"break-glass past coverage: {REASON}" in told["reason"]

    back = platform.command("infra.snapshots", "rollback", "--reason", "the sale is over", "--json")
    assert back.returncode == 0 and platform.live() == (before, generation + 2)
