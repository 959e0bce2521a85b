"""judgement: a suite applied to a case: every check made, Great Expectations asked, each answer worded as a finding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from infra.contracts.errors import ContractViolation, HeadgateError
from validation.case import Case
from validation.check import (
    MAX_EXAMPLES,
    Check,
    EachUser,
    Figures,
    Finding,
    Requirement,
    Severity,
    Status,
)
from validation.expectations import Document, Verdict, judge
from validation.suites.suite import Suite

_RANK = (Status.SKIPPED, Status.PASSED, Status.WARNED, Status.FAILED)
_BROKEN_BY = {Severity.FAIL: Status.FAILED, Severity.WARN: Status.WARNED}


@dataclass(frozen=True, slots=True)
class Judgement:
    """findings: one a check, in the suite's order. complete: False where the first check failed and no other was made.

    figures: what the checks measured of the whole. documents: Great Expectations' own results.
    """

    findings: tuple[Finding, ...]
    complete: bool
    figures: dict[str, float]
    documents: tuple[Document, ...]

    def of(self, status: Status) -> list[Finding]:
        """The findings that ended so."""
        return [finding for finding in self.findings if finding.status is status]

    @property
    def refused(self) -> bool:
        """Whether the snapshot must not go live."""
        return bool(self.of(Status.FAILED))

    @property
    def summary(self) -> str:
        """One line: how many checks ended how, the bad ones by name."""
        parts = []
        for status in (Status.FAILED, Status.WARNED, Status.PASSED, Status.SKIPPED):
            found = self.of(status)
            if found:
                named = status in {Status.FAILED, Status.WARNED}
                names = f" ({', '.join(finding.check for finding in found)})" if named else ""
                parts.append(f"{len(found)} {status}{names}")
        return ", ".join(parts)


def judge_case(case: Case, suite: Suite) -> Judgement:
    """The first check, then, where it holds, all others."""
    name = str(case.version.application)
    first = _apply([suite.first], case, name=f"{name}.first", users=pd.DataFrame())
    if first.refused:
        because = f"not made: {suite.first.name} failed, so nothing more can be said"
        rest = tuple(_ended(check, Status.SKIPPED, because) for check in suite.then)
        return Judgement((*first.findings, *rest), False, first.figures, first.documents)
    rest_of_it = _apply(suite.then, case, name=name, users=case.users)
    return Judgement(
        (*first.findings, *rest_of_it.findings),
        True,
        {**first.figures, **rest_of_it.figures},
        (*first.documents, *rest_of_it.documents),
    )


def unreadable(suite: Suite, error: Exception) -> Judgement:
    """The judgement on a snapshot whose manifest cannot be read."""
    first = Finding(
        check=suite.first.name,
        title=suite.first.title,
        severity=suite.first.severity,
        status=Status.FAILED,
        wanted="a manifest that can be read and has the digest that it states",
        seen=f"{type(error).__name__}: {error}",
    )
    rest = tuple(_ended(check, Status.SKIPPED, "not made: there is no manifest to go by") for check in suite.then)
    return Judgement((first, *rest), False, {}, ())


def _apply(checks: Sequence[Check], case: Case, *, name: str, users: pd.DataFrame) -> Judgement:
    skipped: dict[str, Finding] = {}
    wanted: dict[str, Sequence[Requirement]] = {}
    figures: dict[str, float] = {}
    for check in checks:
        ended, measured, requirements = _ask(check, case)
        if ended is not None:
            skipped[check.name] = ended
            continue
        figures |= measured
        wanted[check.name] = requirements
    judged = judge(wanted, name=name, users=users, figures=figures)
    findings = tuple(
        skipped.get(check.name) or _finding(check, wanted[check.name], judged.verdicts[check.name]) for check in checks
    )
    return Judgement(findings, True, figures, judged.documents)


def _ask(check: Check, case: Case) -> tuple[Finding | None, Figures, Sequence[Requirement]]:
    """How the check ended without having been made, or what it measured and wants."""
    try:
        skip = check.skip(case)
        if skip is not None:
            return _ended(check, *skip), {}, ()
        measured = check.measure(case)
        return None, measured, check.requirements(case, measured)
    except HeadgateError:
        raise
    except Exception as error:
        raise ContractViolation(
            f"{case.version.label}: the check {check.name} could not be made ({type(error).__name__}: {error}).",
            mend="It has neither passed nor failed, and the snapshot's state is as it was. Judge it again with: "
            f"make validate VERSION={case.version.version}",
        ) from error


def _ended(check: Check, status: Status, why: str) -> Finding:
    return Finding(check.name, check.title, check.severity, status, wanted="", seen=why)


def _finding(check: Check, requirements: Sequence[Requirement], verdicts: Sequence[Verdict]) -> Finding:
    """The worst of what was broken, in the requirements' own words; where nothing was, all that was wanted and seen."""
    pairs = list(zip(requirements, verdicts, strict=True))
    status = max(
        (Status.PASSED if verdict.met else _BROKEN_BY[requirement.severity] for requirement, verdict in pairs),
        key=_RANK.index,
        default=Status.PASSED,
    )
    if status is not Status.PASSED:
        pairs = [
            (requirement, verdict)
            for requirement, verdict in pairs
            if not verdict.met and _BROKEN_BY[requirement.severity] is status
        ]
    examples = dict.fromkeys(example for pair in pairs for example in _examples(*pair))
    shows_examples = status is not Status.PASSED
    return Finding(
        check=check.name,
        title=check.title,
        severity=check.severity,
        status=status,
        wanted=_joined(_wanted(check, requirement, status) for requirement, _ in pairs),
        seen=_joined(_seen(*pair) for pair in pairs),
        examples=tuple(examples)[:MAX_EXAMPLES] if shows_examples else (),
    )


def _wanted(check: Check, requirement: Requirement, status: Status) -> str:
    gentler = requirement.severity is Severity.WARN and check.severity is Severity.FAIL
    return f"{requirement.wanted} (else a warning)" if gentler and status is Status.PASSED else requirement.wanted


def _seen(requirement: Requirement, verdict: Verdict) -> str:
    if not isinstance(requirement, EachUser):
        return requirement.seen
    if verdict.met:
        return f"all {verdict.of:,} users"
    return f"{verdict.violations:,} of {verdict.of:,} users {requirement.fault}"


def _examples(requirement: Requirement, verdict: Verdict) -> Sequence[str]:
    if isinstance(requirement, EachUser):
        return [requirement.example(row) for row in verdict.rows]
    return requirement.examples


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
