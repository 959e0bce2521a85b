"""retention: which snapshots and flips the store no longer keeps: older than a declared time, and beyond a declared count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.contracts.ids import VersionName
from infra.snapshots.promotion import Promotion


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays whatever its age (the newest so many) and whatever its number (all that is younger)."""

    snapshots: int
    flips: int
    age: timedelta


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted from the store: snapshots with all their files and reports, and records of flips."""

    snapshots: list[VersionName]
    flips: int


def prune(promotion: Promotion, kept: Kept, *, now: datetime) -> Pruned:
    """Delete what is past its time, never what is live, was live before it, is a canary, is in Redis or is being read.

    What a killed call left half deleted the next one deletes.
    """
    store, standing = promotion.store, promotion.flips.recover()
    versions = store.versions()
    stay = (
        {target.version for target in standing.path[-2:]} | set(promotion.loaded()) | set(versions[-kept.snapshots :])
    )
    if standing.canary is not None:
        stay.add(standing.canary.version)
    gone = []
    for name in versions:
        if name in stay or store.get(name).begun_at > now - kept.age or not promotion.leases.claim(name):
            continue
        try:
            store.remove(name)
        finally:
            promotion.leases.release(name)
        gone.append(name)
    return Pruned(gone, promotion.flips.journal.prune(keep=kept.flips, before=now - kept.age))
