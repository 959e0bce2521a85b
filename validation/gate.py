"""gate: python -m validation.gate: judges a staged snapshot; but for a break-glass promotion only it marks one VALIDATED."""

from __future__ import annotations

import getpass
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.errors import MoveNotAllowed, SnapshotCorrupt, SnapshotNotFound, ValidationRefused
from infra.contracts.snapshots import State, check_move
from infra.snapshots.connection import batch_client
from infra.snapshots.versions import SnapshotStore, Version
from validation.case import Case
from validation.check import Status
from validation.judgement import judge_case, unreadable
from validation.live import Live, live_version
from validation.report.filing import Filed, Ruling, file_report, record_of
from validation.report.page import render
from validation.report.pictures import figures_of
from validation.suites import suite_of

_JUDGED_AGAIN = frozenset({State.VALIDATED, State.REJECTED})
_RECORDED = frozenset({State.STAGED, *_JUDGED_AGAIN})
"""States that a judgement may change. What is live, or was, is only reported on: rolling back is an operator's decision."""

_TOLD = 3
"""Failed checks that the error words in full; it names the others."""

_BROKEN_MANIFEST = (SnapshotCorrupt, ValueError, KeyError, TypeError, AttributeError)
"""Bytes that are no manifest, a manifest with other fields, a manifest that is not what its digest says."""

_COLOURS = {Status.FAILED: "bold red", Status.WARNED: "yellow", Status.PASSED: "green", Status.SKIPPED: "dim"}

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. state: the snapshot's now; recorded: whether this judgement put it there."""

    ruling: Ruling
    filed: Filed
    state: State
    recorded: bool

    def require_passed(self) -> None:
        """Raise ValidationRefused where a check failed."""
        if not self.ruling.judgement.refused:
            return
        failed = self.ruling.judgement.of(Status.FAILED)
        told = " | ".join(finding.line() for finding in failed[:_TOLD])
        others = f" | also failed: {', '.join(finding.check for finding in failed[_TOLD:])}" if failed[_TOLD:] else ""
        stays = "" if self.recorded else f" It stays {self.state}: a judgement does not change that."
        raise ValidationRefused(
            f"{self.ruling.application}/{self.ruling.version} is refused. {told}{others}.{stays}",
            mend=f"What is live stays live. Read {self.filed.page}, mend the build and run: make snapshot",
        )


def judge_version(version: Version, *, store: str, live: Live, actor: str, now: datetime) -> Outcome:
    """Judge a sealed version, file the report beside it and record the verdict, in this order.

    A crash on the way leaves the state as it was. now: names the report's files.
    """
    before = version.state()
    if before is State.BUILDING:
        check_move(snapshot=version.label, version=version.version, seen=before, wanted=State.VALIDATED)
    suite = suite_of(version.application)
    case: Case | None = None
    digest = ""
    try:
        case = Case(version, store=store, spec=application_spec(version.application), live=live.version)
        digest = case.manifest.digest
        judgement = judge_case(case, suite)
    except _BROKEN_MANIFEST as error:
        if case is not None:
            raise
        judgement = unreadable(suite, error)
    ruling = Ruling(version.application, version.version, digest, judgement, live, actor, now)
    page = render(ruling, case)
    filed = file_report(version, ruling, page=page, facts=figures_of(case) if case and judgement.complete else {})
    state, recorded = _record(version, ruling, filed)
    return Outcome(ruling, filed, state, recorded)


def version_to_judge(store: SnapshotStore) -> Version:
    """The newest that waits for its judgement, else the newest that had one. Raises SnapshotNotFound."""
    try:
        return store.newest(State.STAGED)
    except SnapshotNotFound:
        return store.newest(*(state for state in State if state is not State.BUILDING))


def _record(version: Version, ruling: Ruling, filed: Filed) -> tuple[State, bool]:
    """The state afterwards, and whether it was recorded here: not where the version is, or was meanwhile put, beyond judgement.

    Nor where it is live and its flip was killed before it recorded so.
    """
    if version.state() not in _RECORDED or ruling.live.version == version.version:
        return version.state(), False
    verdict = State.REJECTED if ruling.judgement.refused else State.VALIDATED
    reason = f"{ruling.judgement.summary}; manifest {ruling.digest or 'unreadable'}; report {filed.page}"
    try:
        version.record(verdict, actor=ruling.actor, reason=reason)
    except MoveNotAllowed:
        if version.state() in _RECORDED:
            raise
        return version.state(), False
    return verdict, True


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="which application's snapshot")] = "ranking",
    version: Annotated[
        str, typer.Option(help="a version, such as v12; the default is the newest that is STAGED, else the newest")
    ] = "",
    actor: Annotated[str, typer.Option(help="by whose hand, for the records; the default is the system's user")] = "",
    json: Annotated[bool, typer.Option("--json", help="no words, only the JSON object on stdout")] = False,
) -> None:
    """Judge a snapshot against its application's suite. Exit code 1 where it is refused; the alias is never touched.

    The report is stored with the snapshot. Where Redis does not answer, the live version to compare with is the one that the
    records on the store name, and the report says so.
    """
    started = time.monotonic()
    spec = application_spec(application)
    suite_of(spec.name)
    store = SnapshotStore(settings().store, spec.name)
    target = store.get(version) if version else version_to_judge(store)
    with batch_client(settings().redis_url.get_secret_value()) as client:
        live = live_version(store, client)
    if live.doubt:
        console.say(f"warning: {live.doubt}")
    outcome = judge_version(
        target, store=settings().store, live=live, actor=actor or getpass.getuser(), now=datetime.now(UTC)
    )
    if not json:
        _tell(outcome)
    if json or not sys.stdout.isatty():
        console.result(_fields(outcome, seconds=time.monotonic() - started))
    outcome.require_passed()


def _fields(outcome: Outcome, *, seconds: float) -> dict[str, object]:
    record = record_of(outcome.ruling)
    return {
        **record,
        "state": outcome.state,
        "recorded": outcome.recorded,
        "report": outcome.filed.page,
        "record": outcome.filed.record,
        "great_expectations": outcome.filed.expectations,
        "seconds": round(seconds, 2),
    }


def _tell(outcome: Outcome) -> None:
    """One line a check; what is not as wanted with its examples and what was wanted."""
    for finding in outcome.ruling.judgement.findings:
        say = Text.assemble((f"{finding.status:<8}", _COLOURS[finding.status]), f"{finding.check:<20}", finding.seen)
        console.notes.print(say, soft_wrap=True)
        if finding.status in {Status.FAILED, Status.WARNED}:
            for line in (*finding.examples, *([f"wanted: {finding.wanted}"] if finding.wanted else [])):
                console.say(f"{'':<28}{line}")
    kept = "" if outcome.recorded else ", as it was"
    ruling = outcome.ruling
    console.say(
        f"{ruling.application}/{ruling.version} {ruling.verdict}: {ruling.judgement.summary}; {outcome.state}{kept}"
    )
    console.say(f"report: {outcome.filed.page}")


if __name__ == "__main__":
    console.run(app)
