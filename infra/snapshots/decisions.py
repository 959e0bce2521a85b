"""decisions: what a person says of a judged version: that it shall not go live, or that it may in spite of failed checks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from infra.contracts.break_glass import PASSABLE, REASON_AT_LEAST
from infra.contracts.errors import InvalidRequest, NotPermitted, SnapshotNotValidated, ValidationRefused
from infra.contracts.snapshots import State
from infra.snapshots.tables import verify_part
from infra.snapshots.verdicts import FiledVerdict, newest_verdict
from infra.snapshots.versions import Version

_JUDGED = frozenset({State.REJECTED, State.VALIDATED})


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """checks: those that failed and were passed; reason: what every record of the promotion says."""

    checks: tuple[str, ...]
    reason: str


def decline(version: Version, *, actor: str, reason: str) -> None:
    """Record that a validated version was not let go live. It stays VALIDATED. Raises MoveNotAllowed where it is anything else."""
    if not reason.strip():
        raise InvalidRequest("The reason is empty; wanted a few words for the records.", mend="Use --reason '...'")
    version.record(State.VALIDATED, actor=actor, reason=f"not let go live: {reason}", only_from=State.VALIDATED)


def break_glass(version: Version, *, actor: str, reason: str, permitted: Collection[str]) -> BreakGlass:
    """Record a refused version as VALIDATED past its failed checks: by whom, why, past which. Repeating it changes nothing.

    permitted: the actors who may. Every file is compared with the manifest first. Raises NotPermitted, InvalidRequest,
    SnapshotNotValidated, ValidationRefused (a failed check that nobody may pass), SnapshotCorrupt.
    """
    reason = reason.strip()
    _require_permission(version, actor=actor, permitted=permitted)
    if len(reason) < REASON_AT_LEAST:
        raise InvalidRequest(
            f"The reason has {len(reason)} characters; a promotion past failed checks wants {REASON_AT_LEAST} at least.",
            mend="Say what failed, why it may go live all the same, and who agreed.",
        )
    manifest = version.manifest()
    for part in manifest.parts:
        verify_part(version, manifest, part)
    seen = version.state()
    verdict = _refusal(version, seen, digest=manifest.digest)
    never = [check for check in verdict.failed if check not in PASSABLE]
    if never:
        raise ValidationRefused(
            f"{version.label} failed {', '.join(never)}, and nobody may pass that: it could not be served. "
            f"What may be passed: {', '.join(PASSABLE)}.",
            mend="Mend the build and run: make snapshot",
        )
    told = f"break-glass past {', '.join(verdict.failed)}: {reason}"
    recorded = f"{told}; report {version.storage.uri(verdict.page)}"
    if seen in _JUDGED and version.history()[-1].reason != recorded:
        version.record(State.VALIDATED, actor=actor, reason=recorded, only_from=seen)
    return BreakGlass(verdict.failed, told)


def _require_permission(version: Version, *, actor: str, permitted: Collection[str]) -> None:
    if actor not in permitted:
        raise NotPermitted(
            f"{actor} may not promote {version.label} past failed checks; who may: {', '.join(sorted(permitted)) or 'nobody'}.",
            mend=f"Ask one of them, or let the operator add {actor} to HEADGATE_BREAK_GLASS_USERS.",
        )


def _refusal(version: Version, state: State, *, digest: str) -> FiledVerdict:
    """The refusal that is to be passed."""
    verdict = newest_verdict(version)
    if verdict is None or state in {State.BUILDING, State.STAGED} or verdict.digest != digest:
        raise SnapshotNotValidated(
            f"{version.label} is {state} and has no judgement of what it is now; only a refusal can be passed.",
            mend=f"Run: make validate VERSION={version.version}",
        )
    if not verdict.failed:
        raise InvalidRequest(
            f"{version.label} failed no check ({verdict.summary}): there is nothing to pass.",
            mend=f"Promote it without --break-glass: python -m infra.snapshots promote "
            f"--application {version.application} --version {version.version}",
        )
    return verdict
