"""timeline: the flips of one application as the page lists them, newest first, from the journal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.contracts.canaries import CanaryMode
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import FlipKind, FlipRecord, VoidRecord
from infra.snapshots.journal import Journal


@dataclass(frozen=True, slots=True)
class Flip:
    """One move of the alias, or of what runs beside it.

    version: which it is about. before: what was live until then; None at the first.
    mode, fraction: of the canary that it begins, or ends; None where it has none. ended: the version whose canary a move of the
    alias ended in passing. void: why it was never applied, else empty.
    """

    generation: int
    kind: FlipKind
    version: VersionName
    before: VersionName | None
    mode: CanaryMode | None
    fraction: float | None
    ended: VersionName | None
    at: datetime
    actor: str
    reason: str
    void: str


def newest_flips(journal: Journal, *, count: int) -> list[Flip]:
    """The last `count` flips, newest first."""
    return [_flip(record, void) for record, void in journal.newest(count)]


def _flip(record: FlipRecord, void: VoidRecord | None) -> Flip:
    canary, was = record.canary or record.canary_before, record.canary_before
    in_passing = was is not None and was.version not in {record.subject, record.target.version}
    return Flip(
        generation=record.generation,
        kind=record.kind,
        version=record.subject,
        before=record.before.version if record.before else None,
        mode=canary.mode if canary else None,
        fraction=canary.fraction if canary else None,
        ended=was.version if was is not None and in_passing else None,
        at=record.at,
        actor=record.actor,
        reason=record.reason,
        void=void.reason if void else "",
    )
