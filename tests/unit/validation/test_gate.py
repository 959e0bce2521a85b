"""What the gate does with a verdict: states, refusals, reports, and the alias, which it never touches."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import redis
from typer.testing import CliRunner

from infra.config.settings import CHECKOUT, settings
from infra.contracts.errors import ContractViolation, MoveNotAllowed, SnapshotNotFound, ValidationRefused
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import State
from infra.snapshots.connection import batch_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.redis_server import free_port
from tests.fixtures.tiny_snapshot import RANKING, TinyWorld, build_tiny_snapshot, tiny_world
from tests.unit.validation.spoilings import drop_user, rename_items
from tests.unit.validation.workbench import NOW, Workbench, judge, open_workbench, put_live
from validation import gate
from validation.case import Case
from validation.check import Check, Figures, Severity, Status
from validation.judgement import judge_case
from validation.live import live_version
from validation.suites.ranking import RANKING_SUITE


def sealed_bytes(version: Version) -> dict[str, str]:
    names = [name for name in version.storage.files("") if not name.startswith(("validation/", "states/"))]
    return {name: version.storage.sha256(name) for name in names}


def test_a_pass_is_recorded_with_the_digest_the_summary_and_the_report(bench: Workbench) -> None:
    outcome = bench.judge(live="v1")
    last = bench.version.history()[-1]
    assert (last.state, last.actor) == (State.VALIDATED, "test gate")
    for part in (bench.manifest.digest, "19 passed", outcome.filed.page):
        assert part in last.reason
    outcome.require_passed()


def test_a_refusal_is_recorded_and_names_what_was_found(bench: Workbench) -> None:
    bench.edit_rows(drop_user)
    outcome = bench.judge(live="v1")
    last = bench.version.history()[-1]
    assert (last.state, outcome.state, outcome.recorded) == (State.REJECTED, State.REJECTED, True)
    assert "1 failed (coverage)" in last.reason
    with pytest.raises(
        ValidationRefused,
        match=r"^ranking/v2 is refused\. coverage: seen 1 of 120 users have no list or more than one, "
        r"e\.g\. user 'u3' \(index 3\): no list; wanted one list for each of the 120 users with events\. "
        r"What is live stays live\. Read .*20240602T120000\.000000Z-report\.html, mend the build and run: make snapshot$",
    ):
        outcome.require_passed()


def test_a_job_that_drops_users_from_everything_it_writes_is_caught_by_the_events(bench: Workbench) -> None:
    bench.edit_rows(lambda rows: rows.__delitem__(slice(0, 30)))
    for user in range(30):
        bench.drop_user_vector(user)
    bench.reseal(counts={**bench.manifest.counts, "users": 90, "users_expected": 90})
    (finding,) = bench.judge(live="v1").ruling.judgement.of(Status.FAILED)
    assert (finding.check, finding.seen) == ("coverage", "30 of 120 users have no list or more than one")


def test_a_snapshot_may_be_judged_again_both_ways(bench: Workbench) -> None:
    rename_items(bench)
    later = [NOW + timedelta(minutes=at) for at in range(3)]
    states = [bench.judge(live=live, now=now).state for live, now in zip(("v1", None, "v1"), later, strict=True)]
    assert states == [State.REJECTED, State.VALIDATED, State.REJECTED]
    assert [record.state for record in bench.version.history()] == [State.STAGED, *states]
    assert len(bench.version.storage.names("validation")) == 9


@pytest.mark.parametrize("state", [State.LIVE, State.RETIRED, State.ROLLED_BACK, State.CANARY])
def test_what_is_or_was_in_use_is_reported_on_and_keeps_its_state(bench: Workbench, state: State) -> None:
    rename_items(bench)
    path = {State.CANARY: [State.CANARY], State.LIVE: [State.LIVE]}.get(state, [State.LIVE, state])
    for one in (State.VALIDATED, *path):
        bench.version.record(one, actor="test", reason="")
    before = bench.version.history()
    outcome = bench.judge(live="v1")
    assert (outcome.state, outcome.recorded) == (state, False)
    assert bench.version.history() == before
    assert bench.version.storage.exists(f"validation/{Path(outcome.filed.page).name}")
    with pytest.raises(ValidationRefused, match=f"It stays {state}: a judgement does not change that"):
        outcome.require_passed()


def test_a_snapshot_whose_flip_was_killed_before_it_recorded_so_is_not_rejected_while_it_is_live(
    bench: Workbench,
) -> None:
    bench.edit_rows(lambda rows: rows.__delitem__(slice(0, 1)))
    bench.reseal(counts={**bench.manifest.counts, "users": 119})
    bench.version.record(State.VALIDATED, actor="test", reason="")
    outcome = bench.judge(live=bench.version.version)
    assert outcome.ruling.judgement.refused
    assert (outcome.state, outcome.recorded) == (State.VALIDATED, False)


def test_a_snapshot_that_went_live_during_its_judgement_stays_live(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.version.record(State.VALIDATED, actor="test", reason="")
    record = Version.record

    def overtaken(self: Version, state: State, *, actor: str, reason: str) -> None:
        record(self, State.LIVE, actor="operator", reason="flipped meanwhile")
        record(self, state, actor=actor, reason=reason)

    monkeypatch.setattr(Version, "record", overtaken)
    outcome = bench.judge()
    assert (outcome.state, outcome.recorded) == (State.LIVE, False)


def test_a_judgement_changes_nothing_that_was_sealed(bench: Workbench) -> None:
    before = sealed_bytes(bench.version)
    bench.judge(live="v1")
    assert sealed_bytes(bench.version) == before


def test_two_judgements_at_one_moment_do_not_overwrite_each_other(bench: Workbench) -> None:
    bench.judge()
    with pytest.raises(ContractViolation, match="two judgements have one moment"):
        bench.judge()


@pytest.mark.parametrize("content", [b"no JSON", b"{}", b'{"created_at": 7}', b"[]"])
def test_a_manifest_that_cannot_be_read_is_refused(bench: Workbench, content: bytes) -> None:
    bench.version.storage.write("manifest.json", content)
    outcome = bench.judge()
    assert outcome.state is State.REJECTED
    with pytest.raises(ValidationRefused, match="integrity: seen .*; wanted a manifest that can be read"):
        outcome.require_passed()


def test_a_manifest_with_another_digest_than_it_states_is_refused(bench: Workbench) -> None:
    text = bench.version.storage.read("manifest.json").decode()
    bench.version.storage.write("manifest.json", text.replace('"dim": 8', '"dim": 9').encode())
    outcome = bench.judge()
    assert outcome.state is State.REJECTED
    assert "states digest" in outcome.ruling.judgement.of(Status.FAILED)[0].seen


def test_an_unsealed_version_cannot_be_judged(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path), seal=False)
    with pytest.raises(MoveNotAllowed, match="is BUILDING and cannot become VALIDATED. Its build has not ended"):
        judge(version, store=str(tmp_path))


def test_lists_may_be_shorter_than_k_where_the_catalogue_has_no_more(tmp_path: Path) -> None:
    world = tiny_world(users=40, items=60)
    version = build_tiny_snapshot(str(tmp_path), world=world, k=58)
    outcome = judge(version, store=str(tmp_path))
    assert outcome.state is State.VALIDATED, outcome.ruling.judgement.summary
    lengths = Workbench(str(tmp_path), version, world).case().users["length"]
    assert lengths.nunique() > 1


def test_the_newest_staged_version_is_judged_first_and_else_the_newest_judged_one(
    good_store: Path, tmp_path: Path, world: TinyWorld
) -> None:
    root = tmp_path / "store"
    shutil.copytree(good_store, root)
    store = SnapshotStore(str(root), RANKING)
    build_tiny_snapshot(str(root), world=world, seal=False)
    assert gate.version_to_judge(store).version == "v2"
    store.get("v2").record(State.REJECTED, actor="test", reason="")
    assert gate.version_to_judge(store).version == "v2"
    with pytest.raises(SnapshotNotFound, match="make snapshot"):
        gate.version_to_judge(SnapshotStore(str(tmp_path / "empty"), RANKING))


@dataclass(frozen=True, kw_only=True)
class _Stumbling(Check):
    name = "stumbling"
    title = "A check with a bug"

    def measure(self, case: Case) -> Figures:
        return {"stumbling": float(len(case.titles[10_000]))}

    def requirements(self, case: Case, figures: Figures) -> tuple[()]:
        return ()


def test_a_check_that_could_not_be_made_has_not_passed(bench: Workbench) -> None:
    suite = replace(RANKING_SUITE, then=(_Stumbling(severity=Severity.WARN),))
    with pytest.raises(ContractViolation, match="ranking/v2: the check stumbling could not be made .IndexError"):
        judge_case(bench.case(), suite)
    assert bench.version.state() is State.STAGED


def test_another_embedder_is_expected_to_differ_from_the_live_one(bench: Workbench) -> None:
    rename_items(bench)
    bench.reseal(embedder="als")
    outcome = bench.judge(live="v1")
    assert outcome.state is State.VALIDATED
    (finding,) = outcome.ruling.judgement.of(Status.WARNED)
    assert finding.check == "overlap"
    assert "embedder changed from spectral to als" in finding.seen


def test_consumed_items_are_allowed_where_the_manifest_says_so(tmp_path: Path) -> None:
    world = tiny_world(users=30)
    unseen = replace(world, histories=[np.zeros(0, np.int32) for _ in world.histories])
    version = build_tiny_snapshot(str(tmp_path), world=unseen)
    bench = Workbench(str(tmp_path), version, unseen)
    rows = bench.rows()
    version = build_tiny_snapshot(str(tmp_path), world=world, rows=rows)
    bench = Workbench(str(tmp_path), version, world)
    assert "unseen" in {finding.check for finding in bench.judge().ruling.judgement.of(Status.FAILED)}
    bench.reseal(include_seen=True)
    outcome = bench.judge(now=NOW + timedelta(minutes=1))
    assert outcome.state is State.VALIDATED, outcome.ruling.judgement.summary
    assert "unseen" in {finding.check for finding in outcome.ruling.judgement.of(Status.SKIPPED)}


# -- the command, against a real Redis


@pytest.fixture
def alias_store(good_store: Path, tmp_path: Path, redis_url: str) -> Iterator[tuple[Path, redis.Redis]]:
    """v1 loaded and live by the alias of a real Redis; v2 staged."""
    root = tmp_path / "store"
    shutil.copytree(good_store, root)
    client = batch_client(redis_url)
    client.flushdb()
    store = SnapshotStore(str(root), RANKING)
    promotion = Promotion(store, client)
    promotion.load(store.get("v1"), limit_fraction=1.0)
    promotion.flip(store.get("v1"), actor="test", reason="test")
    yield root, client
    client.flushdb()
    client.close()


def everything(client: redis.Redis) -> dict[bytes, bytes | None]:
    return {key: client.dump(key) for key in client.scan_iter()}


def test_a_refusal_exits_with_1_and_leaves_the_alias_and_all_of_redis_alone(
    alias_store: tuple[Path, redis.Redis], redis_url: str, world: TinyWorld
) -> None:
    root, client = alias_store
    bench = open_workbench(root, "v2", world)
    bench.edit_rows(drop_user)
    before = everything(client)
    done = subprocess.run(
        [sys.executable, "-m", "validation.gate", "--application", "ranking", "--version", "v2", "--actor", "a test"],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "HEADGATE_STORE": str(root), "HEADGATE_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "ValidationRefused: ranking/v2 is refused. coverage: seen 1 of 120 users" in errors[0]
    assert "user 'u3' (index 3): no list" in errors[0]
    assert "Traceback" not in done.stderr
    assert "Calculating Metrics" not in done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["verdict"], result["state"], result["live"]) == ("refused", "REJECTED", "v1")
    assert Path(result["report"]).is_file()
    assert bench.version.history()[-1].actor == "a test"
    assert everything(client) == before


def run(root: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Mapping[str, object]:
    monkeypatch.setenv("HEADGATE_STORE", str(root))
    monkeypatch.setenv("HEADGATE_REDIS_URL", redis_url)
    settings.cache_clear()
    try:
        done = CliRunner().invoke(gate.app, list(arguments), catch_exceptions=False)
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert done.exit_code == 0, done.output
    found: Mapping[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_the_alias_says_which_snapshot_is_live(
    alias_store: tuple[Path, redis.Redis], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(alias_store[0], redis_url, monkeypatch, "--json")
    assert (result["version"], result["live"], result["live_doubt"]) == ("v2", "v1", "")
    assert result["state"] == "VALIDATED"
    assert result["actor"] == getpass.getuser()


def test_with_redis_away_the_records_on_the_store_say_what_is_live_and_the_report_says_so(
    good_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    shutil.copytree(good_store, root)
    result = run(root, f"redis://127.0.0.1:{free_port()}/0", monkeypatch)
    assert (result["live"], result["state"]) == ("v1", "VALIDATED")
    assert "Redis does not answer" in str(result["live_doubt"])
    assert "the records on the store say that v1 is live" in Path(str(result["report"])).read_text()


def test_an_alias_that_redis_forgot_is_replaced_by_the_records(good_store: Path, redis_url: str) -> None:
    client = batch_client(redis_url)
    client.flushdb()
    live = live_version(SnapshotStore(str(good_store), RANKING), client)
    assert live.version == "v1"
    assert "the alias in Redis is empty" in live.doubt


def test_before_the_first_flip_nothing_is_live_and_nothing_is_doubted(tmp_path: Path, redis_url: str) -> None:
    client = batch_client(redis_url)
    client.flushdb()
    live = live_version(SnapshotStore(str(tmp_path), RANKING), client)
    assert (live.version, live.doubt) == (None, "")


def test_the_alias_counts_more_than_the_records(alias_store: tuple[Path, redis.Redis]) -> None:
    root, client = alias_store
    put_live(SnapshotStore(str(root), RANKING).get(VersionName("v2")))
    assert live_version(SnapshotStore(str(root), RANKING), client).version == "v1"
