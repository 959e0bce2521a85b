"""timeline: the flips of one application as the page lists them, newest first, from the journal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.contracts.ids import VersionName
from infra.contracts.snapshots import FlipKind
from infra.snapshots.journal import Journal


@dataclass(frozen=True, slots=True)
class Flip:
    """One move of the alias. before: what was live until then; None at the first. void: why it was never applied, else empty."""

    generation: int
    kind: FlipKind
    version: VersionName
    before: VersionName | None
    at: datetime
    actor: str
    reason: str
    void: str


def newest_flips(journal: Journal, *, count: int) -> list[Flip]:
    """The last `count` flips, newest first."""
    return [
        Flip(
            generation=record.generation,
            kind=record.kind,
            version=record.target.version,
            before=record.before.version if record.before else None,
            at=record.at,
            actor=record.actor,
            reason=record.reason,
            void=void.reason if void else "",
        )
        for record, void in journal.newest(count)
    ]
