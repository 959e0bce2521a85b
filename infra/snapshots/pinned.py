"""pinned: one snapshot in a service's memory, as a request sees it, and the choice between two of them for a user."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.exposures import Arm
from infra.contracts.snapshots import Alias, Manifest
from infra.snapshots.versions import SnapshotStore, Version

T = TypeVar("T")

Load = Callable[[Version, Manifest], T]
"""Reads what the service needs of a version; raises HeadgateError where it must not be served."""


@dataclass(frozen=True, slots=True)
class Pinned(Generic[T]):
    """One snapshot as a request sees it. A request takes the reference once; nothing of another version mixes in."""

    alias: Alias
    manifest: Manifest
    content: T
    loaded_at: datetime
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Assignment(Generic[T]):
    """What one user gets. arm: the share of users this one is in, by the canary's bucket.

    shown: the snapshot of the answer; in the canary's arm it is the live one while the canary cannot be served.
    shadow: what else scores the request, unseen; None where nothing does.
    """

    shown: Pinned[T]
    arm: Arm
    shadow: Pinned[T] | None = None


def read_pinned(store: SnapshotStore, alias: Alias, load: Load[T]) -> Pinned[T]:
    """What the alias names, from the store. Raises SnapshotNotFound, SnapshotCorrupt, and what `load` raises."""
    started = time.monotonic()
    version = store.get(alias.version)
    manifest = version.manifest()
    if manifest.digest != alias.digest:
        raise SnapshotCorrupt(
            f"{version.label} on the store has digest {manifest.digest[:12]}, the alias names {alias.digest[:12]}.",
            mend="HEADGATE_STORE of the service and of the jobs must be the same.",
        )
    content = load(version, manifest)
    return Pinned(alias, manifest, content, datetime.now(UTC), time.monotonic() - started)
