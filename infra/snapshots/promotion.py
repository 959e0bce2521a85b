"""promotion: what an operator does to versions: open, load, flip, roll back, collect garbage, ask how fresh."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import redis

from infra.contracts.errors import SnapshotError, SnapshotNotFound, SnapshotNotValidated
from infra.contracts.ids import VersionName, version_name, version_number
from infra.contracts.snapshots import Alias, State
from infra.snapshots import keys
from infra.snapshots.alias import AliasStore
from infra.snapshots.serving_copy import LoadReport, ServingCopy, delete_version
from infra.snapshots.versions import SnapshotStore, Version

_MAY_BE_LOADED = frozenset({State.VALIDATED, State.LIVE, State.RETIRED, State.ROLLED_BACK})


class Promotion:
    """One application's versions, their copies in Redis and the alias over them."""

    def __init__(self, store: SnapshotStore, client: redis.Redis) -> None:
        self.store = store
        self.alias = AliasStore(client, store.application)
        self._client = client

    def open(self, *, actor: str) -> Version:
        """Allocate the next version, noting the alias's generation: a flip that finds it moved is fenced."""
        alias = self.alias.read()
        return self.store.allocate(generation=alias.generation if alias else 0, actor=actor)

    def load(
        self, version: Version, *, limit_fraction: float, advance: Callable[[int], None] = lambda users: None
    ) -> LoadReport:
        """Load a validated version's serving copy. Raises SnapshotNotValidated, NotEnoughRoom."""
        manifest = version.manifest()
        self._require_validated(version)
        return ServingCopy(self._client, version).load(manifest, limit_fraction=limit_fraction, advance=advance)

    def flip(self, version: Version, *, actor: str, reason: str, force: bool = False) -> Alias:
        """Put a validated, loaded version live.

        Raises FlipFenced where the alias moved since the version was opened; `force` takes the generation as it is now.
        Flipping to what is live already changes nothing.
        """
        live = self.alias.read()
        manifest = version.manifest()
        if live is not None and live.version == version.version and live.digest == manifest.digest:
            self._settle_states(version, left=None, left_state=State.RETIRED, actor=actor, reason=reason)
            return live
        self._require_validated(version)
        ServingCopy(self._client, version).require_loaded(manifest)
        expected = manifest.generation_at_start
        if force:
            expected = live.generation if live else 0
        alias = self.alias.flip(
            version.version, digest=manifest.digest, expected_generation=expected, actor=actor, reason=reason
        )
        left = live.version if live else None
        self._settle_states(version, left=left, left_state=State.RETIRED, actor=actor, reason=reason)
        return alias

    def rollback(
        self, wanted: VersionName | None, *, actor: str, reason: str, limit_fraction: float
    ) -> tuple[Alias | None, Alias]:
        """Put an earlier version live again, loading it if garbage collection had taken it. Returns (before, after)."""
        live = self.alias.read()
        target, depth = self.alias.rollback_target(wanted)
        version = self.store.get(target)
        manifest = version.manifest()
        if live is not None and live.version == target:
            return live, live
        self.load(version, limit_fraction=limit_fraction)
        alias = self.alias.flip(
            target,
            digest=manifest.digest,
            expected_generation=live.generation if live else 0,
            actor=actor,
            reason=reason,
            depth=depth,
        )
        left = live.version if live else None
        forward = left is not None and version_number(target) > version_number(left)
        left_state = State.RETIRED if forward else State.ROLLED_BACK
        self._settle_states(version, left=left, left_state=left_state, actor=actor, reason=reason)
        return live, alias

    def collect(self, *, keep: int) -> dict[VersionName, int]:
        """Delete the copies of all but the `keep` newest versions of the history (the live one among them).

        A version newer than the live one is being loaded or waits for its flip, and stays. Returns keys deleted a version.
        """
        history = self.alias.history()
        if not history:
            return {}
        kept = set(history[-keep:])
        newest_live = max(version_number(name) for name in history)
        deleted = {}
        for name in self.loaded():
            if name not in kept and version_number(name) <= newest_live:
                deleted[name] = delete_version(self._client, self.store.application, name)
        return deleted

    def loaded(self) -> list[VersionName]:
        """The versions with a complete copy in Redis, oldest first."""
        pattern = keys.load_marker(self.store.application, VersionName("*"))
        found = [key.decode().split(":")[2] for key in self._client.scan_iter(match=pattern, count=10_000)]
        return sorted((version_name(name) for name in found), key=version_number)

    def require_fresh(self, *, now: datetime, slo: timedelta) -> timedelta:
        """The live snapshot's age; raises SnapshotError where it is older than the freshness SLO."""
        live = self.alias.read()
        if live is None:
            raise SnapshotNotFound(f"{self.store.application} has no live snapshot.", mend="Run: make snapshot")
        age = now - self.store.get(live.version).manifest().created_at
        if age > slo:
            raise SnapshotError(
                f"{self.store.application}: the live snapshot {live.version} is {age / timedelta(hours=1):.1f} h old; "
                f"the freshness SLO is {slo / timedelta(hours=1):.1f} h.",
                mend=f"Look at the last run of snapshot_refresh_{self.store.application}, or run: make snapshot",
            )
        return age

    def _require_validated(self, version: Version) -> None:
        state = version.state()
        if state not in _MAY_BE_LOADED:
            raise SnapshotNotValidated(
                f"{version.label} is {state}; wanted VALIDATED.", mend=f"Run: make validate VERSION={version.version}"
            )

    def _settle_states(
        self, version: Version, *, left: VersionName | None, left_state: State, actor: str, reason: str
    ) -> None:
        """Record what the alias already says; the alias is the truth, the records its history."""
        if version.state() is not State.LIVE:
            version.record(State.LIVE, actor=actor, reason=reason)
        if left is not None and left != version.version:
            before = self.store.get(left)
            if before.state() is State.LIVE:
                before.record(left_state, actor=actor, reason=f"{version.version} went live: {reason}")
