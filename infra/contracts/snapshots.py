"""snapshots: the states a snapshot may be in, the moves between them, its manifest, and the alias that points at one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

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
    State.RETIRED: frozenset({State.LIVE}),
    State.ROLLED_BACK: frozenset({State.LIVE}),
    State.REJECTED: frozenset({State.VALIDATED, State.REJECTED}),
}
"""Every move that is allowed; a second judgement of a refused or validated snapshot is one (thresholds may have changed)."""

_MEND = {
    State.VALIDATED: "Only a staged snapshot can be judged. Run: make snapshot",
    State.LIVE: "Run: make validate VERSION={version}",
    State.STAGED: "A sealed snapshot cannot be sealed again. Run: make snapshot",
}


def check_move(*, snapshot: str, version: VersionName, seen: State, wanted: State) -> None:
    """Raise MoveNotAllowed unless the table has the move."""
    if wanted not in ALLOWED_MOVES[seen]:
        raise MoveNotAllowed(
            f"{snapshot} is {seen} and cannot become {wanted}.",
            mend=_MEND.get(wanted, "").format(version=version),
        )


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
class Manifest:
    """Everything a reader must know of one snapshot. Sealed once; a snapshot exists if and only if this does."""

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
        fields["created_at"] = datetime.fromisoformat(fields["created_at"])
        fields["parts"] = {name: Part(**part) for name, part in fields["parts"].items()}
        ranker = fields["ranker"]
        ranker["feature_order"] = tuple(ranker["feature_order"])
        fields["ranker"] = RankerInfo(**ranker)
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
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Alias:
    """What `predictions_current` says: which version is live, since when, by whose hand."""

    version: VersionName
    generation: int
    digest: str
    flipped_at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One line of a snapshot's life."""

    state: State
    at: datetime
    actor: str
    reason: str
