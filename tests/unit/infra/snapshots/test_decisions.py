"""A person beside the gate: declining what it passed, and passing what it refused: who may, which checks, what the records say."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.contracts.break_glass import PASSABLE
from infra.contracts.errors import (
    InvalidRequest,
    MoveNotAllowed,
    NotPermitted,
    SnapshotCorrupt,
    SnapshotNotValidated,
    ValidationRefused,
)
from infra.contracts.snapshots import State
from infra.snapshots.connection import batch_client
from infra.snapshots.decisions import break_glass, decline
from infra.snapshots.promotion import Promotion
from infra.snapshots.storage import Storage
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot
from validation.check import Finding, Severity, Status
from validation.judgement import Judgement
from validation.live import Live
from validation.report.filing import Ruling, file_report
from validation.suites import suite_of

REASON = "the sale begins at nine; agreed with bea"
ADA = frozenset({"ada"})


def judged(root: Path, *failed: str, digest: str = "", records: bool = True) -> Version:
    """A sealed snapshot on which the gate found those checks failed."""
    version = build_tiny_snapshot(str(root))
    checks = ("integrity", *(check for check in failed if check != "integrity"))
    findings = tuple(
        Finding(check, check, Severity.FAIL, Status.FAILED if check in failed else Status.PASSED, "much", "little")
        for check in checks
    )
    judgement = Judgement(findings, True, {}, ())
    digest = digest or version.manifest().digest
    ruling = Ruling(RANKING, version.version, digest, judgement, Live(None), "gate", datetime.now(UTC))
    file_report(version, ruling, page=b"report", facts={})
    if records:
        state = State.REJECTED if failed else State.VALIDATED
        version.record(state, actor="gate", reason=judgement.summary)
    return version


def test_a_refused_snapshot_is_passed_with_the_checks_the_person_and_the_reason_on_record(tmp_path: Path) -> None:
    version = judged(tmp_path, "overlap", "recall")
    passed = break_glass(version, actor="ada", reason=f" {REASON} ", permitted=ADA)
    assert passed.checks == ("overlap", "recall")
    assert passed.reason == f"break-glass past overlap, recall: {REASON}"
    record = version.history()[-1]
    assert (record.state, record.actor) == (State.VALIDATED, "ada")
    assert record.reason.startswith(f"{passed.reason}; report ") and record.reason.endswith("-report.html")


def test_passing_it_again_says_the_same_and_records_nothing_more(tmp_path: Path) -> None:
    version = judged(tmp_path, "overlap")
    first = break_glass(version, actor="ada", reason=REASON, permitted=ADA)
    states = len(version.history())
    assert break_glass(version, actor="ada", reason=REASON, permitted=ADA) == first
    assert len(version.history()) == states


@pytest.mark.parametrize(
    ("permitted", "who"), [(frozenset(), "nobody"), (frozenset({"bea", "airflow:ada"}), "airflow:ada, bea")]
)
def test_only_those_who_are_named_may_and_the_error_says_who(
    tmp_path: Path, permitted: frozenset[str], who: str
) -> None:
    version = judged(tmp_path, "overlap")
    with pytest.raises(NotPermitted, match=rf"who may: {who}\. Ask one of them, .* HEADGATE_BREAK_GLASS_USERS"):
        break_glass(version, actor="ada", reason=REASON, permitted=permitted)
    assert version.state() is State.REJECTED


@pytest.mark.parametrize("reason", ["", "it must go live now", "x" + " " * 30], ids=["none", "19", "blanks"])
def test_a_short_reason_is_none(tmp_path: Path, reason: str) -> None:
    version = judged(tmp_path, "overlap")
    with pytest.raises(InvalidRequest, match="wants 20 at least"):
        break_glass(version, actor="ada", reason=reason, permitted=ADA)
    assert version.state() is State.REJECTED


NEVER = [check.name for check in (suite_of(RANKING).first, *suite_of(RANKING).then) if check.name not in PASSABLE]


@pytest.mark.parametrize("check", [*NEVER, "a_check_of_tomorrow"])
def test_a_check_without_which_nothing_can_be_served_is_passed_by_nobody(tmp_path: Path, check: str) -> None:
    version = judged(tmp_path, "overlap", check)
    with pytest.raises(ValidationRefused, match=rf"failed .*{check}.*, and nobody may pass that"):
        break_glass(version, actor="ada", reason=REASON, permitted=ADA)
    assert version.state() is State.REJECTED


def test_every_check_that_may_be_passed_is_one_of_the_gate_and_digests_never_are() -> None:
    assert set(PASSABLE) | set(NEVER) == {check.name for check in (suite_of(RANKING).first, *suite_of(RANKING).then)}
    assert {"integrity", "record_shape", "catalogue", "finite_scores", "ranker_model"} <= set(NEVER)


def test_a_file_that_changed_since_is_not_passed_whatever_the_report_says(tmp_path: Path) -> None:
    version = judged(tmp_path, "overlap")
    path = next(iter(version.manifest().parts["item_table"].files))
    version.storage.write(path, version.storage.read(path) + b"x")
    with pytest.raises(SnapshotCorrupt, match="its manifest promises"):
        break_glass(version, actor="ada", reason=REASON, permitted=ADA)
    assert version.state() is State.REJECTED


def test_what_was_not_judged_as_it_is_now_cannot_be_passed(tmp_path: Path) -> None:
    for version in (
        build_tiny_snapshot(str(tmp_path)),
        judged(tmp_path, "overlap", records=False),
        judged(tmp_path, "overlap", digest="of another manifest"),
    ):
        before = version.state()
        with pytest.raises(SnapshotNotValidated, match=f"make validate VERSION={version.version}"):
            break_glass(version, actor="ada", reason=REASON, permitted=ADA)
        assert version.state() is before


def test_where_nothing_failed_there_is_no_glass_to_break(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="failed no check .*Promote it without --break-glass"):
        break_glass(judged(tmp_path), actor="ada", reason=REASON, permitted=ADA)


def test_a_declined_snapshot_stays_validated_and_says_who_and_why(tmp_path: Path) -> None:
    version = judged(tmp_path)
    decline(version, actor="airflow:bea", reason="the lists look odd")
    record = version.history()[-1]
    assert (record.state, record.actor, record.reason) == (
        State.VALIDATED,
        "airflow:bea",
        "not let go live: the lists look odd",
    )
    with pytest.raises(InvalidRequest, match="The reason is empty"):
        decline(version, actor="airflow:bea", reason=" ")


@pytest.mark.parametrize("state", [State.STAGED, State.REJECTED])
def test_declining_validates_nothing(tmp_path: Path, state: State) -> None:
    version = judged(tmp_path, "overlap") if state is State.REJECTED else build_tiny_snapshot(str(tmp_path))
    with pytest.raises(MoveNotAllowed, match=f"is {state}; this was meant for one that is VALIDATED"):
        decline(version, actor="bea", reason="odd")
    assert version.state() is state


def test_a_gate_that_refuses_in_the_same_moment_is_not_overruled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, create = judged(tmp_path), Storage.create

    def beaten(storage: Storage, path: str, content: bytes) -> bool:
        monkeypatch.undo()
        version.record(State.REJECTED, actor="gate", reason="judged again")
        return create(storage, path, content)

    monkeypatch.setattr(Storage, "create", beaten)
    with pytest.raises(MoveNotAllowed, match="is REJECTED; this was meant for one that is VALIDATED"):
        decline(version, actor="bea", reason="odd")
    assert [record.state for record in version.history()] == [State.STAGED, State.VALIDATED, State.REJECTED]


def test_a_passed_snapshot_is_loaded_flipped_and_judged_by_its_digests_like_any_other(
    tmp_path: Path, redis_url: str
) -> None:
    version = judged(tmp_path, "overlap")
    with batch_client(redis_url) as client:
        client.flushall()
        promotion = Promotion(SnapshotStore(str(tmp_path), RANKING), client)
        with pytest.raises(SnapshotNotValidated):
            promotion.load(version, limit_fraction=1.0)
        passed = break_glass(version, actor="ada", reason=REASON, permitted=ADA)
        promotion.load(version, limit_fraction=1.0)
        alias = promotion.flip(version, actor="ada", reason=passed.reason)
        assert (alias.version, alias.actor, alias.reason) == (version.version, "ada", passed.reason)
        record, _ = next(promotion.flips.journal.newest(1))
        assert (record.actor, record.reason) == ("ada", passed.reason)
        assert version.history()[-1].reason == passed.reason
        client.flushall()
