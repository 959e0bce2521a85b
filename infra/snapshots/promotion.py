"""promotion: what an operator does to versions: open, load, flip, try on a share of the users, roll back, reload, collect."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import redis

from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.errors import (
    FlipFenced,
    MoveNotAllowed,
    NotEnoughRoom,
    NothingToRollBackTo,
    SnapshotCorrupt,
    SnapshotError,
    SnapshotNotFound,
    SnapshotNotLoaded,
)
from infra.contracts.ids import VersionName, version_name, version_number
from infra.contracts.snapshots import Alias, FlipKind, FlipRecord, State, Target, check_move
from infra.snapshots import keys
from infra.snapshots.fences import (
    NEVER_LIVE,
    require_as_validated,
    require_files,
    require_generation,
    require_no_canary,
    require_validated,
)
from infra.snapshots.flips import Flips, Standing
from infra.snapshots.leases import Leases
from infra.snapshots.serving_copy import LoadReport, ServingCopy, Verified, delete_version, pages
from infra.snapshots.tables import verify_part
from infra.snapshots.versions import SnapshotStore, Version

_GC_RESTS = 4.0
"""Nobody waits for garbage collection: it works a fifth of the time."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What `reload` did. loads: by version, the live one first."""

    before: Standing
    after: Standing
    loads: dict[VersionName, LoadReport]


class Promotion:
    """One application's versions, their copies in Redis, and the flips that make one of them live."""

    def __init__(self, store: SnapshotStore, client: redis.Redis) -> None:
        self.store = store
        self.flips = Flips(store, client)
        self.alias = self.flips.alias
        self.leases = Leases(client, store.application)
        self._client = client

    def open(self, *, actor: str) -> Version:
        """Allocate the next version, noting the generation: a flip that finds it moved is fenced."""
        return self.store.allocate(generation=self.flips.look().generation, actor=actor)

    def load(
        self, version: Version, *, limit_fraction: float, advance: Callable[[int], None] = lambda users: None
    ) -> LoadReport:
        """Load a validated version's serving copy. Raises SnapshotNotValidated, NotEnoughRoom, SnapshotCorrupt."""
        with self.leases.held(version.version):
            return self._load(version, limit_fraction=limit_fraction, advance=advance)

    def flip(self, version: Version, *, actor: str, reason: str, force: bool = False) -> Alias:
        """Put a validated, loaded version live.

        What Redis holds of it is compared with the sealed digests: all of it before a first promotion, else a sample. So are
        the files beside it. Flipping to what is live already changes nothing; the canary that runs goes live for all. Raises
        FlipFenced where the generation moved since the version was opened, CanaryRuns where the canary of another runs (`force`
        takes it as it is now, and ends that), SnapshotNotValidated, SnapshotNotLoaded, SnapshotCorrupt.
        """
        standing = self.flips.recover()
        manifest = version.manifest()
        target = Target(version.version, manifest.digest)
        if standing.alias is not None and _is(standing.alias, target) and _is(standing.live, target):
            return standing.alias
        require_validated(version)
        if not _runs(standing.canary, target) and not _is(standing.live, target) and not force:
            require_no_canary(version, standing)
            require_generation(version, manifest, standing)
        with self.leases.held(version.version):
            require_as_validated(version, manifest, self.copy_of(version))
            return self._go(standing, (*standing.path, target), FlipKind.FLIP, actor=actor, reason=reason)

    def start_canary(
        self, version: Version, fraction: float, mode: CanaryMode, *, actor: str, reason: str, force: bool = False
    ) -> Alias:
        """Let a loaded version that may go live be tried beside the live one: shown to a share of the users, or unseen.

        Verified as before a promotion, and fenced like one. Starting it as it runs already changes nothing. Raises
        InvalidRequest (the fraction), MoveNotAllowed, CanaryRuns, SnapshotNotFound (nothing is live), and what `flip` raises.
        """
        standing, manifest = self.flips.recover(), version.manifest()
        canary = Canary(
            version=version.version,
            digest=manifest.digest,
            fraction=fraction,
            salt=secrets.token_hex(8),
            mode=mode,
            started_at=datetime.now(UTC),
            started_by=actor,
        )
        if standing.live is None:
            raise SnapshotNotFound(
                f"{self.store.application} has no live snapshot to try {version.version} beside.",
                mend=f"Run: python -m infra.snapshots promote --version {version.version}",
            )
        running = standing.canary
        if running is not None and standing.applied and canary.same_trial(running):
            return standing.live
        require_no_canary(version, standing)
        check_move(snapshot=version.label, version=version.version, seen=version.state(), wanted=State.CANARY)
        if not force:
            require_generation(version, manifest, standing)
        with self.leases.held(version.version):
            require_as_validated(version, manifest, self.copy_of(version))
            canary = replace(canary, started_at=datetime.now(UTC))
            record = self.flips.intend(
                standing, standing.path, kind=FlipKind.CANARY, actor=actor, reason=reason, canary=canary
            )
            return self._finish(standing, record)

    def end_canary(self, wanted: VersionName, *, actor: str, reason: str, refused: bool) -> Alias:
        """End the canary of that version; all users get what is live. refused: it was found worse, so it is ROLLED_BACK.

        Otherwise it is VALIDATED as before. Raises MoveNotAllowed where it does not run, FlipFenced.
        """
        standing = self.flips.recover()
        if standing.canary is None or standing.canary.version != wanted:
            runs = f"the canary of {standing.canary.version} runs" if standing.canary else "no canary runs"
            raise MoveNotAllowed(
                f"{self.store.application}/{wanted} is not tried on users now: {runs}.", mend="Run: make status"
            )
        kind = FlipKind.CANARY_ROLLBACK if refused else FlipKind.CANARY_END
        record = self.flips.intend(standing, standing.path, kind=kind, actor=actor, reason=reason)
        return self._finish(standing, record)

    def rollback(
        self,
        wanted: VersionName | None,
        *,
        actor: str,
        reason: str,
        limit_fraction: float,
        only_from: Target | None = None,
    ) -> tuple[Alias | None, Alias]:
        """Put an earlier version live again, loading it if garbage collection had taken it. Returns (before, after).

        Without a wanted version it is the one before the live one on the live path, which the rollback shortens: a second one
        goes further back. One that was stopped half-way is completed by the next, which goes no further: it may be repeated.
        To what is live already there is no way back, but a canary beside it is ended. only_from: what must still be live, for
        who judged that. Raises NothingToRollBackTo, FlipFenced, and what `load` raises.
        """
        seen = self.flips.look()
        before, completes = seen.alias, wanted is None and self.flips.unfinished_rollback(seen)
        standing = self.flips.recover()
        path = standing.path if completes and standing.tip == seen.tip else self._path_back(standing, wanted)
        version = self.store.get(path[-1].version)
        if only_from is not None and not _is(standing.live, only_from):
            live = standing.live.version if standing.live else "nothing"
            raise FlipFenced(
                f"{self.store.application}: {live} is live; this was meant to go back from {only_from.version}.",
                mend="Look at what is live, then decide: make status",
            )
        if standing.alias is not None and _is(standing.alias, path[-1]) and _is(standing.live, path[-1]):
            canary = standing.canary
            if canary is None:
                return before, standing.alias
            return before, self.end_canary(canary.version, actor=actor, reason=reason, refused=False)
        with self.leases.held(version.version):
            require_files(version, version.manifest())
            self._load(version, limit_fraction=limit_fraction)
            after = self._go(standing, path, FlipKind.ROLLBACK, actor=actor, reason=reason)
        return before, after

    def reload(self, *, limit_fraction: float, advance: Callable[[int], None] = lambda users: None) -> Reloaded:
        """Rebuild from the store what Redis lost: the live version's copy and the canary's, the alias, then the version before.

        What is there already is left. A live version that cannot be loaded because its files are damaged is voided, and the
        newest before it that can takes its place; a canary that cannot is ended. Raises SnapshotNotFound where nothing is live,
        NotEnoughRoom.
        """
        before, loads = self.flips.look(), dict[VersionName, LoadReport]()
        standing = self.flips.recover()
        while not loads:
            if not standing.path:
                raise SnapshotNotFound(
                    f"{self.store.application} has no live snapshot to reload.", mend="Run: make snapshot"
                )
            live = self.store.get(standing.path[-1].version)
            try:
                loads[live.version] = self.load(live, limit_fraction=limit_fraction, advance=advance)
            except SnapshotCorrupt as error:
                if standing.applied or standing.ahead:
                    raise
                self.flips.journal.void(standing.highest, actor="reload", reason=str(error))
            else:
                loads |= self._reload_canary(standing, limit_fraction=limit_fraction, advance=advance)
            standing = self.flips.recover()
        for target in standing.path[-2:-1]:
            version = self.store.get(target.version)
            loads[target.version] = self.load(version, limit_fraction=limit_fraction, advance=advance)
        return Reloaded(before, standing, loads)

    def verify(self, version: Version, *, advance: Callable[[int], None] = lambda users: None) -> Verified | None:
        """Compare every file with the manifest, and every record in Redis with its sealed digest; None where none is loaded.

        Raises SnapshotCorrupt, SnapshotNotLoaded.
        """
        manifest = version.manifest()
        for part in manifest.parts:
            verify_part(version, manifest, part)
        copy = self.copy_of(version)
        if copy.marker() is None:
            return None
        return copy.verify(manifest, chunks=None, rng=np.random.default_rng(), advance=advance)

    def collect(self, *, keep: int) -> dict[VersionName, int]:
        """Delete the copies that nobody needs. Returns keys deleted a version.

        Kept are the `keep` newest versions of the live path (the live one and the one before it always), a canary, what a reader
        leases, and what is newer than all of that path and waits for its first flip. What a load or a deletion that was killed
        left is deleted as well.
        """
        standing = self.flips.recover()
        if not standing.path:
            return {}
        kept = {target.version for target in standing.path[-max(keep, 2) :]}
        if standing.canary is not None:
            kept.add(standing.canary.version)
        newest_live = max(version_number(target.version) for target in standing.path)
        deleted = {}
        for name in self._present():
            waits = version_number(name) > newest_live and self._waits(name)
            if name not in kept and not waits and self.leases.claim(name):
                deleted[name] = self._delete(name)
        return deleted

    def loaded(self) -> list[VersionName]:
        """The versions with a complete copy in Redis, oldest first."""
        pattern = keys.load_marker(self.store.application, VersionName("*"))
        found = [key.decode().split(":")[2] for key in self._client.scan_iter(match=pattern, count=10_000)]
        return sorted((version_name(name) for name in found), key=version_number)

    def _present(self) -> list[VersionName]:
        """The versions of which Redis has any key, oldest first."""
        found = set[bytes]()
        for page in pages(self._client, self.store.application, VersionName("v*"), rest=_GC_RESTS):
            found |= {key.split(b":", 3)[2] for key in page}
        return sorted((version_name(name.decode()) for name in found), key=version_number)

    def copy_of(self, version: Version) -> ServingCopy:
        """The version's copy in Redis, whether there is one or not."""
        return ServingCopy(self._client, version)

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

    def _load(
        self, version: Version, *, limit_fraction: float, advance: Callable[[int], None] = lambda users: None
    ) -> LoadReport:
        manifest = version.manifest()
        require_validated(version)
        return self.copy_of(version).load(manifest, limit_fraction=limit_fraction, advance=advance)

    def _reload_canary(
        self, standing: Standing, *, limit_fraction: float, advance: Callable[[int], None]
    ) -> dict[VersionName, LoadReport]:
        """Before the alias names it again: its users must not meet a version that is not there."""
        canary = standing.canary
        if canary is None:
            return {}
        try:
            version = self.store.get(canary.version)
            return {version.version: self.load(version, limit_fraction=limit_fraction, advance=advance)}
        except (SnapshotCorrupt, SnapshotNotFound, NotEnoughRoom) as error:
            self.flips.intend(standing, standing.path, kind=FlipKind.CANARY_END, actor="reload", reason=str(error))
            return {}

    def _delete(self, name: VersionName) -> int:
        def claim() -> None:
            if not self.leases.claim(name):
                raise SnapshotError(
                    f"{self.store.application}/{name} was taken into use while it was being deleted from Redis.",
                    mend=f"Run: python -m infra.snapshots load --application {self.store.application} --version {name}",
                )

        try:
            return delete_version(self._client, self.store.application, name, before_each=claim, rest=_GC_RESTS)
        finally:
            self.leases.release(name)

    def _waits(self, name: VersionName) -> bool:
        try:
            return self.store.get(name).state() in NEVER_LIVE
        except SnapshotNotFound:
            return False

    def _go(self, standing: Standing, path: tuple[Target, ...], kind: FlipKind, *, actor: str, reason: str) -> Alias:
        """The three steps to the path's last; where the journal has it already only the alias is left to move."""
        if standing.tip is not None and not standing.ahead and standing.tip.target == path[-1]:
            alias = self.flips.recover().alias
            if alias is None or not _is(alias, path[-1]):
                raise SnapshotNotLoaded(
                    f"{self.store.application}: {path[-1].version} is live by the journal, and its copy left Redis meanwhile.",
                    mend="Run: python -m infra.snapshots reload",
                )
            return alias
        return self._finish(standing, self.flips.intend(standing, path, kind=kind, actor=actor, reason=reason))

    def _finish(self, standing: Standing, record: FlipRecord) -> Alias:
        """The second and the third step."""
        alias = self.flips.apply(record, seen=standing.alias)
        self.flips.settle(record)
        return alias

    def _path_back(self, standing: Standing, wanted: VersionName | None) -> tuple[Target, ...]:
        path = standing.path
        if wanted is None:
            if len(path) < 2:
                raise NothingToRollBackTo(
                    f"{self.store.application} has no version before {path[-1].version if path else 'the first'}.",
                    mend="Name one with: make rollback VERSION=v3",
                )
            return path[:-1]
        for end in range(len(path), 0, -1):
            if path[end - 1].version == wanted:
                return path[:end]
        return (*path, Target(wanted, self.store.get(wanted).manifest().digest))


def _runs(canary: Canary | None, target: Target) -> bool:
    return canary is not None and (canary.version, canary.digest) == (target.version, target.digest)


def _is(alias: Alias | None, target: Target) -> bool:
    return alias is not None and (alias.version, alias.digest) == (target.version, target.digest)
