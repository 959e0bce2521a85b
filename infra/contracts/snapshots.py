"""snapshots: the states a snapshot may be in, the moves between them, its manifest, the alias, and the records of its flips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from infra.contracts.canaries import Canary
from infra.contracts.errors import MoveNotAllowed, SnapshotCorrupt
from infra.contracts.ids import ApplicationName, DatasetId, VersionName


class State(StrEnum):
    """Where a snapshot stands."""

    BUILDING = "BUILDING"
    STAGED = "STAGED"
    VALIDATED = "VALIDATED"
    CANARY = "CANARY"
    LIVE = "LIVE"
    RETIRED = "RETIRED"
    REJECTED = "REJECTED"
    ROLLED_BACK = "ROLLED_BACK"


ALLOWED_MOVES: dict[State, frozenset[State]] = {
    State.BUILDING: frozenset({State.STAGED}),
    State.STAGED: frozenset({State.VALIDATED, State.REJECTED}),
    State.VALIDATED: frozenset({State.CANARY, State.LIVE, State.VALIDATED, State.REJECTED}),
    State.CANARY: frozenset({State.LIVE, State.VALIDATED, State.ROLLED_BACK}),
    State.LIVE: frozenset({State.RETIRED, State.ROLLED_BACK}),
    State.RETIRED: frozenset({State.LIVE, State.CANARY}),
    State.ROLLED_BACK: frozenset({State.LIVE, State.CANARY}),
    State.REJECTED: frozenset({State.VALIDATED, State.REJECTED}),
}
"""Every move that is allowed; a second judgement of a refused or validated snapshot is one (thresholds may have changed)."""

_MEND: dict[State, str] = {
    State.BUILDING: "A snapshot that was built stays built. Run: make snapshot",
    State.STAGED: "A sealed snapshot cannot be sealed again. Run: make snapshot",
    State.VALIDATED: "Only a staged snapshot can be judged. Run: make snapshot",
    State.CANARY: "Run: make validate VERSION={version}",
    State.LIVE: "Run: make validate VERSION={version}",
    State.RETIRED: "Only what is live is retired. Run: make status",
    State.ROLLED_BACK: "Only what is live or a canary is rolled back. Run: make status",
    State.REJECTED: "What was live is rolled back, not rejected. Run: make rollback",
}
_NEVER_BUILT = "Its build has not ended. Run: make snapshot"


def check_move(*, snapshot: str, version: VersionName, seen: State, wanted: State) -> None:
    """Raise MoveNotAllowed, with the state seen, the state wanted and the mend, unless the table has the move."""
    if wanted not in ALLOWED_MOVES[seen]:
        mend = _NEVER_BUILT if seen is State.BUILDING else _MEND[wanted]
        raise MoveNotAllowed(f"{snapshot} is {seen} and cannot become {wanted}.", mend=mend.format(version=version))


@dataclass(frozen=True, slots=True)
class Part:
    """One table or file of a snapshot: paths are relative to the version's folder, sorted; digests are SHA-256 of the bytes."""

    rows: int
    files: dict[str, str]
    bytes: int


@dataclass(frozen=True, slots=True)
class RankerInfo:
    """The model that scores candidates, and how well it did offline on the held-out window."""

    part: str
    signature: str
    feature_order: tuple[str, ...]
    trees: int
    metrics: dict[str, dict[str, float]]
    trained_on: str


@dataclass(frozen=True, slots=True)
class StageInfo:
    """One scorer of the cascade, by what it added on the held-out window to the stages before it that are on.

    ndcg10: of the lists after it; gain: the mean difference, gain_low95: the lower end of its 95 % interval. on: whether serving
    applies it. inputs: the names of what it takes, in order, and weights: of a sum of them, one each; part: the file of a stage
    that has one. Those three are empty where the stage needs none.
    """

    ndcg10: float
    gain: float
    gain_low95: float
    on: bool
    inputs: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    part: str = ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> StageInfo:
        """From JSON."""
        return cls(**{**fields, "inputs": tuple(fields["inputs"]), "weights": tuple(fields["weights"])})


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a reader must know of one snapshot. Sealed once; a snapshot exists if and only if this does.

    records_root: SHA-256 over the digests of what Redis must hold, hexadecimal; empty in snapshots sealed before there was one.
    stages: the cascade's scorers by name, those that there are; empty where nothing was judged: the ranker alone is applied.
    """

    application: ApplicationName
    version: VersionName
    created_at: datetime
    dataset: DatasetId
    parents: dict[str, str]
    generation_at_start: int
    embedder: str
    dim: int
    candidates_per_user: int
    include_seen: bool
    score_scale: float
    user_feature_order: tuple[str, ...]
    item_feature_order: tuple[str, ...]
    definition_hash: str
    counts: dict[str, int]
    parts: dict[str, Part]
    ranker: RankerInfo
    records_root: str = field(default="")
    stages: dict[str, StageInfo] = field(default_factory=dict)
    digest: str = field(default="")

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, so that equal manifests have equal bytes."""
        fields = asdict(self)
        fields["created_at"] = self.created_at.isoformat()
        return json.dumps(fields, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Parse and verify: raises SnapshotCorrupt where the stated digest is not the digest of the content."""
        fields = json.loads(text)
        _require_fields(fields)
        fields["created_at"] = datetime.fromisoformat(fields["created_at"])
        fields["parts"] = {name: Part(**part) for name, part in fields["parts"].items()}
        ranker = fields["ranker"]
        ranker["feature_order"] = tuple(ranker["feature_order"])
        fields["ranker"] = RankerInfo(**ranker)
        fields["stages"] = {name: StageInfo.from_fields(said) for name, said in fields.get("stages", {}).items()}
        for name in ("user_feature_order", "item_feature_order"):
            fields[name] = tuple(fields[name])
        manifest = cls(**fields)
        if manifest.digest != manifest.content_digest():
            raise SnapshotCorrupt(
                f"The manifest of {manifest.application}/{manifest.version} states digest {manifest.digest[:12]}, "
                f"its content has {manifest.content_digest()[:12]}.",
                mend="Restore the file from a copy or build again: make snapshot",
            )
        return manifest

    def content_digest(self) -> str:
        """SHA-256 over all fields but the digest itself; it covers every file through the parts' digests."""
        fields = asdict(self)
        fields["created_at"] = self.created_at.isoformat()
        del fields["digest"]
        if not self.records_root:
            del fields["records_root"]  # sealed before there was one: the digest was taken without
        if not self.stages:
            del fields["stages"]  # likewise
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _require_fields(seen: dict[str, object]) -> None:
    """Raise SnapshotCorrupt where another release of this code sealed the manifest."""
    known = {
        part.name: part.default is MISSING and part.default_factory is MISSING for part in dataclass_fields(Manifest)
    }
    lacks = [name for name, needed in known.items() if needed and name not in seen]
    strange = sorted(seen.keys() - known.keys())
    if lacks or strange:
        raise SnapshotCorrupt(
            f"The manifest of {seen.get('application')}/{seen.get('version')} was sealed by another release: "
            f"it lacks {', '.join(lacks) or 'nothing'}, and has {', '.join(strange) or 'nothing'} that is not known here.",
            mend="Build again: make snapshot",
        )


@dataclass(frozen=True, slots=True)
class Alias:
    """What `predictions_current` says: which version is live, since when, by whose hand, and which canary runs beside it."""

    version: VersionName
    generation: int
    digest: str
    flipped_at: datetime
    actor: str
    reason: str
    canary: Canary | None = None


class FlipKind(StrEnum):
    """Why the alias was moved. The last three leave what is live alone, and change what runs beside it."""

    FLIP = "flip"
    """By a build, by a canary that passed, or by hand."""
    ROLLBACK = "rollback"
    REPAIR = "repair"
    """Away from a flip that could not be completed."""
    CANARY = "canary"
    """A canary or a shadow began."""
    CANARY_END = "canary-end"
    """It was ended without a verdict."""
    CANARY_ROLLBACK = "canary-rollback"
    """It was found worse than the live one."""


BESIDE = frozenset({FlipKind.CANARY, FlipKind.CANARY_END, FlipKind.CANARY_ROLLBACK})
"""The kinds that are about a canary."""


@dataclass(frozen=True, slots=True)
class Target:
    """One sealed snapshot, named so that nothing else can be meant."""

    version: VersionName
    digest: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """When, by whose hand, and why."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class FlipRecord:
    """One line of the journal of flips: what a generation names, for ever.

    before: what was live at that moment, and its generation; None at the first flip.
    path: what was live and not rolled back, oldest first; its last is this record's own target.
    canary: what runs beside it from here on; canary_before: what ran until then.
    live_since: how the target went live, where that was before this record: it begins or ends a canary, or repairs something else.
    """

    generation: int
    kind: FlipKind
    at: datetime
    actor: str
    reason: str
    before: Target | None
    before_generation: int
    path: tuple[Target, ...]
    canary: Canary | None = None
    canary_before: Canary | None = None
    live_since: Stamp | None = None

    @property
    def target(self) -> Target:
        """What goes live."""
        return self.path[-1]

    @property
    def subject(self) -> VersionName:
        """Which version it is about: the canary that it begins or ends, else what it puts live."""
        canary = self.canary or self.canary_before
        return canary.version if canary is not None and self.kind in BESIDE else self.target.version

    @property
    def alias(self) -> Alias:
        """What `predictions_current` says once the flip is applied."""
        target, since = self.target, self.live_since or Stamp(self.at, self.actor, self.reason)
        return Alias(
            target.version, self.generation, target.digest, since.at, since.actor, since.reason, canary=self.canary
        )

    def to_json(self) -> str:
        """As it lies in the journal."""
        return json.dumps(asdict(self), indent=1, default=datetime.isoformat)

    @classmethod
    def from_json(cls, text: str | bytes) -> FlipRecord:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        before = fields["before"]
        return cls(
            generation=fields["generation"],
            kind=FlipKind(fields["kind"]),
            at=datetime.fromisoformat(fields["at"]),
            actor=fields["actor"],
            reason=fields["reason"],
            before=Target(**before) if before else None,
            before_generation=fields["before_generation"],
            path=tuple(Target(**target) for target in fields["path"]),
            canary=_canary(fields.get("canary")),
            canary_before=_canary(fields.get("canary_before")),
            live_since=_stamp(fields.get("live_since")),
        )


def _canary(fields: dict[str, object] | None) -> Canary | None:
    return Canary.from_fields(fields) if fields else None


def _stamp(fields: dict[str, str] | None) -> Stamp | None:
    return Stamp(datetime.fromisoformat(fields["at"]), fields["actor"], fields["reason"]) if fields else None


@dataclass(frozen=True, slots=True)
class VoidRecord:
    """Why a flip that was journalled shall never be applied; its generation is used up."""

    generation: int
    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One line of a snapshot's life."""

    state: State
    at: datetime
    actor: str
    reason: str
