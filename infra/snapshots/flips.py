"""flips: the steps of a flip (journal, then alias, then states), and what is made of one that was stopped between them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import redis

from infra.contracts.canaries import Canary
from infra.contracts.errors import FlipFenced, MoveNotAllowed, SnapshotError, SnapshotNotFound
from infra.contracts.ids import version_number
from infra.contracts.snapshots import BESIDE, Alias, FlipKind, FlipRecord, Stamp, State, Target
from infra.snapshots.alias import AliasStore, describe, same
from infra.snapshots.serving_copy import ServingCopy
from infra.snapshots.versions import SnapshotStore

PROMOTABLE = frozenset({State.VALIDATED, State.CANARY, State.LIVE, State.RETIRED, State.ROLLED_BACK})
"""The states from which a snapshot may be loaded and go live."""

_LONGEST_PATH = 100
_PASSES = 20
_RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Standing:
    """What Redis says and what the journal says, at one moment."""

    alias: Alias | None
    tip: FlipRecord | None
    highest: int

    @property
    def generation(self) -> int:
        """The highest one used; the next flip takes the one after."""
        return max(self.highest, self.alias.generation if self.alias else 0)

    @property
    def ahead(self) -> bool:
        """The alias has a generation that the journal does not know: it was moved without it."""
        return self.alias is not None and self.alias.generation > self.highest

    @property
    def live(self) -> Alias | None:
        """What is live: what the journal says, or an alias that is ahead of it."""
        if self.ahead or self.tip is None:
            return self.alias
        return self.tip.alias

    @property
    def canary(self) -> Canary | None:
        """What runs beside what is live."""
        return self.live.canary if self.live is not None else None

    @property
    def path(self) -> tuple[Target, ...]:
        """What was live and not rolled back, oldest first; the last is live."""
        path = self.tip.path if self.tip else ()
        live = self.live
        if live is None or (path and path[-1] == Target(live.version, live.digest)):
            return path
        return (*path, Target(live.version, live.digest))

    @property
    def applied(self) -> bool:
        """Whether the alias says what the journal says."""
        if self.tip is None or self.alias is None:
            return self.alias is None and self.tip is None
        return self.highest == self.tip.generation and same(self.alias, self.tip.alias)

    @property
    def problem(self) -> str:
        """Why the two differ, and the mend; empty where they agree."""
        if self.applied:
            return ""
        if self.ahead:
            return (
                f"the alias says {describe(self.alias)}, the journal ends at generation {self.highest}: the alias was moved "
                "by another store or before there was a journal. The next flip takes the generation after both"
            )
        wanted = describe(self.tip.alias if self.tip else None)
        return (
            f"the journal says {wanted}, the alias says {describe(self.alias)}: Redis lost its memory or a flip was "
            "stopped half-way. Run: python -m infra.snapshots reload"
        )


class Flips:
    """Moves one application's alias, each step a method: whoever is stopped between two is completed or voided by the next."""

    def __init__(self, store: SnapshotStore, client: redis.Redis) -> None:
        self.store = store
        self.journal = store.journal
        self.alias = AliasStore(client, store.application)
        self._client = client

    def look(self) -> Standing:
        """Alias first: a flip that comes between leaves the journal newer, never the alias."""
        alias = self.alias.read()
        tip = self.journal.tip()
        return Standing(alias, tip.record, tip.highest)

    def recover(self) -> Standing:
        """Bring the alias to the journal's end, and return how both stand then.

        A flip that was journalled and never applied is completed where its snapshot's copy is in Redis; it is voided where
        the snapshot is gone or may no longer go live, and the newest before it that may takes its place under a generation
        of its own. Where only the copy is missing, or its canary's, the standing is left as it is: `load` or a flip to another
        version mends it. An alias ahead of the journal is left alone.
        """
        for _ in range(_PASSES):
            standing = self.look()
            tip = standing.tip
            if standing.ahead or standing.highest == 0:
                return standing
            if tip is None or tip.generation < standing.highest:
                path = self._path_past_void(standing)
                if not path:
                    return standing
                reason = f"generation {standing.highest} was voided"
                void = self.journal.read(standing.highest)
                with suppress(FlipFenced):
                    self.intend(standing, path, kind=FlipKind.REPAIR, actor=_RECOVERY, reason=reason, ended=void.canary)
                continue
            if standing.applied:
                self.settle(tip)
                return standing
            unfit = self._unfit(tip)
            if unfit:
                self.journal.void(tip.generation, actor=_RECOVERY, reason=unfit)
                continue
            if not all(map(self._loaded, _served(tip))):
                self.settle(tip)
                return standing
            with suppress(FlipFenced):
                self.apply(tip, seen=standing.alias)
        raise FlipFenced(
            f"{self.store.application}: the alias was moved by others {_PASSES} times while this looked.",
            mend="Look at what is live, then decide: make status",
        )

    def intend(
        self,
        standing: Standing,
        path: tuple[Target, ...],
        *,
        kind: FlipKind,
        actor: str,
        reason: str,
        canary: Canary | None = None,
        ended: Canary | None = None,
    ) -> FlipRecord:
        """Step 1: journal the flip to the path's last, beside which `canary` runs; what ran until now ends.

        ended: what is to be recorded as ended, where that is not what the standing says. Raises FlipFenced where somebody has
        taken its generation.
        """
        live = standing.live
        stays = kind in BESIDE or (kind is FlipKind.REPAIR and live is not None and path[-1] == _target(live))
        record = FlipRecord(
            generation=standing.generation + 1,
            kind=kind,
            at=datetime.now(UTC),
            actor=actor,
            reason=reason,
            before=_target(live) if live else None,
            before_generation=live.generation if live else 0,
            path=path[-_LONGEST_PATH:],
            canary=canary,
            canary_before=ended or standing.canary,
            live_since=Stamp(live.flipped_at, live.actor, live.reason) if live and stays else None,
        )
        if not self.journal.append(record):
            raise FlipFenced(
                f"{self.store.application}: generation {record.generation} was taken by another flip in the same moment; "
                f"wanted it for {record.target.version}.",
                mend="Look at what is live, then decide: make status",
            )
        return record

    def apply(self, record: FlipRecord, *, seen: Alias | None) -> Alias:
        """Step 2: move the alias. Raises FlipFenced where it no longer says what was seen, unless this went through before."""
        return self.alias.move(record.alias, seen=seen)

    def settle(self, record: FlipRecord) -> None:
        """Step 3: record the states that follow. The journal is the truth; a newer flip has its own to record."""
        if self.journal.tip().highest != record.generation:
            return
        name, before = record.target.version, record.before
        with suppress(MoveNotAllowed, SnapshotNotFound):  # moved on or deleted meanwhile: then nothing is to be said
            version = self.store.get(name)
            if version.state() is not State.LIVE:
                version.record(State.LIVE, actor=record.actor, reason=record.reason)
        self._settle_canary(record)
        if before is None or before.version == name:
            return
        back = record.kind is FlipKind.ROLLBACK and version_number(name) < version_number(before.version)
        with suppress(MoveNotAllowed, SnapshotNotFound):
            left = self.store.get(before.version)
            if left.state() is State.LIVE:
                state = State.ROLLED_BACK if back else State.RETIRED
                left.record(state, actor=record.actor, reason=f"{name} went live: {record.reason}")

    def _settle_canary(self, record: FlipRecord) -> None:
        ended, begun = record.canary_before, record.canary
        if ended is not None and ended.version not in {record.target.version, begun.version if begun else None}:
            with suppress(MoveNotAllowed, SnapshotNotFound):
                version = self.store.get(ended.version)
                if version.state() is State.CANARY:
                    state = State.ROLLED_BACK if record.kind is FlipKind.CANARY_ROLLBACK else State.VALIDATED
                    version.record(state, actor=record.actor, reason=f"its canary ended: {record.reason}")
        if begun is not None:
            with suppress(MoveNotAllowed, SnapshotNotFound):
                version = self.store.get(begun.version)
                if version.state() is not State.CANARY:
                    reason = f"{begun.mode} for {begun.fraction:.3g} of the users: {record.reason}"
                    version.record(State.CANARY, actor=record.actor, reason=reason)

    def unfinished_rollback(self, standing: Standing) -> bool:
        """Whether the newest flip is a rollback that was stopped before its alias was moved, or before its states were recorded."""
        tip, alias = standing.tip, standing.alias
        if tip is None or alias is None or tip.kind is not FlipKind.ROLLBACK or tip.generation < standing.highest:
            return False
        if standing.applied:
            return self._state(tip.target) is not State.LIVE
        seen = (Target(alias.version, alias.digest), alias.generation)
        return seen == (tip.before, tip.before_generation)

    def unfit(self, target: Target) -> str:
        """Why a snapshot may not be live; empty where it may."""
        try:
            version = self.store.get(target.version)
            digest = version.manifest().digest
        except SnapshotError as error:
            return str(error)
        if digest != target.digest:
            return f"{version.label} on the store has digest {digest[:12]}, the flip named {target.digest[:12]}."
        state = version.state()
        return "" if state in PROMOTABLE else f"{version.label} is {state}."

    def _unfit(self, record: FlipRecord) -> str:
        return next((why for why in map(self.unfit, _served(record)) if why), "")

    def _path_past_void(self, standing: Standing) -> tuple[Target, ...]:
        """What is live where the newest flip is void: as before it, down to the newest snapshot that may be live.

        A repair that was voided too is cut shorter, so that this ends.
        """
        void = self.journal.read(standing.highest)
        path = void.path[:-1]
        if void.kind is not FlipKind.REPAIR and standing.tip is not None:
            path = standing.tip.path
        while path and self.unfit(path[-1]):
            path = path[:-1]
        return path

    def _state(self, target: Target) -> State | None:
        try:
            return self.store.get(target.version).state()
        except SnapshotNotFound:
            return None

    def _loaded(self, target: Target) -> bool:
        marker = ServingCopy(self._client, self.store.get(target.version)).marker()
        return marker is not None and marker["digest"] == target.digest


def _served(record: FlipRecord) -> list[Target]:
    """All that users may be shown once the record is applied."""
    canary = record.canary
    return [record.target, *([Target(canary.version, canary.digest)] if canary is not None else [])]


def _target(alias: Alias) -> Target:
    return Target(alias.version, alias.digest)
