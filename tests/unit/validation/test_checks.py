"""Every check rejects its own bad examples, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.contracts.errors import ValidationRefused
from infra.contracts.snapshots import State
from tests.unit.validation.bad_examples import BAD_EXAMPLES, BadExample
from tests.unit.validation.workbench import Workbench
from validation.check import Finding, Status


def _ended(findings: tuple[Finding, ...], *statuses: Status) -> set[str]:
    return {finding.check for finding in findings if finding.status in statuses}


@pytest.mark.parametrize("bad", BAD_EXAMPLES, ids=str)
def test_a_bad_example_is_found_by_its_own_check_and_by_no_other(bench: Workbench, bad: BadExample) -> None:
    bad.spoil(bench)
    outcome = bench.judge(live="v1")
    judgement = outcome.ruling.judgement
    assert _ended(judgement.findings, Status.FAILED, Status.WARNED) == {bad.check, *bad.companions}, judgement.summary
    (finding,) = (finding for finding in judgement.findings if finding.check == bad.check)
    assert finding.status is bad.status
    assert bad.says in finding.seen
    assert finding.wanted or finding.check == "ranker_quality"
    assert bad.example in "\n".join(finding.examples)
    if bad.status is Status.WARNED:
        outcome.require_passed()
        assert bench.version.state() is State.VALIDATED
        return
    assert bench.version.state() is State.REJECTED
    with pytest.raises(ValidationRefused) as refused:
        outcome.require_passed()
    told = str(refused.value)
    for part in (bad.check, finding.seen, finding.wanted, *finding.examples, outcome.filed.page):
        assert part in told


def test_a_good_snapshot_passes_every_check(bench: Workbench) -> None:
    outcome = bench.judge(live="v1")
    assert {finding.status for finding in outcome.ruling.judgement.findings} == {Status.PASSED}
    assert outcome.state is State.VALIDATED


def test_without_a_live_snapshot_only_the_comparison_is_skipped(bench: Workbench) -> None:
    judgement = bench.judge(live=None).ruling.judgement
    assert _ended(judgement.findings, Status.SKIPPED) == {"score_distribution", "overlap"}
    assert _ended(judgement.findings, Status.FAILED, Status.WARNED) == set()
    assert all("no live snapshot" in finding.seen for finding in judgement.of(Status.SKIPPED))


def test_a_snapshot_that_was_to_have_no_ranker_passes_without_its_quality(bench: Workbench) -> None:
    bench.reseal(ranker=replace(bench.manifest.ranker, metrics={}))
    judgement = bench.judge(live="v1").ruling.judgement
    assert _ended(judgement.findings, Status.SKIPPED) == {"ranker_quality"}
    assert _ended(judgement.findings, Status.FAILED, Status.WARNED) == set()


def test_a_live_snapshot_that_cannot_be_read_is_a_warning(bench: Workbench) -> None:
    judgement = bench.judge(live="v9").ruling.judgement
    assert _ended(judgement.findings, Status.WARNED) == {"score_distribution", "overlap"}
    assert "v9 is live and cannot be read" in judgement.of(Status.WARNED)[0].seen


def test_nothing_is_said_of_the_lists_where_the_files_are_not_those_that_were_sealed(bench: Workbench) -> None:
    (changed,) = (bad for bad in BAD_EXAMPLES if bad.name == "changed byte")
    changed.spoil(bench)
    judgement = bench.judge(live="v1").ruling.judgement
    assert not judgement.complete
    assert len(judgement.of(Status.SKIPPED)) == len(judgement.findings) - 1


def test_examples_are_few_and_the_count_is_whole(bench: Workbench) -> None:
    bench.edit_rows(lambda rows: rows.__delitem__(slice(10, 30)))
    (finding,) = bench.judge().ruling.judgement.of(Status.FAILED)
    assert "20 of 120 users" in finding.seen
    assert len(finding.examples) == 5
    assert finding.examples[0] == "user 'u10' (index 10): no list"


def test_a_snapshot_without_a_single_list_is_refused(bench: Workbench) -> None:
    bench.edit_rows(lambda rows: rows.clear())
    judgement = bench.judge().ruling.judgement
    assert _ended(judgement.findings, Status.FAILED) == {"coverage"}
    assert "120 of 120 users have no list" in judgement.of(Status.FAILED)[0].seen
