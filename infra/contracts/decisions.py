"""decisions: one answer with all that it was made of, so that it can be computed again and learnt from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infra.contracts.candidates import Float32s
from infra.contracts.exposures import Arm
from infra.contracts.features import FeatureValue
from infra.contracts.ids import ItemId, UserId, VersionName

MAX_FEATURE_BYTES = 8 * 1024
"""Of the feature vectors that go with an answer: those of its first items; the others follow by replay."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Up to where the log was counted when the answer was made.

    now_us: the moment that features are worth something at, microseconds since 1970. offset: of the user's shard, None where
    Redis did not answer; pending: offsets beyond it of the user's own records that counted too; is_whole False: there were too
    many, and none of them counted in features. board_us, board_offsets: when the boards were read, and up to which offset of
    every shard they were counted; 0 and nothing where no board was used. uncounted: where is_whole is False, the event ids of
    those too many: what they consumed was not shown.
    """

    now_us: int
    offset: int | None
    pending: tuple[int, ...]
    is_whole: bool
    board_us: int = 0
    board_offsets: tuple[int, ...] = ()
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a scorer did where it was not all. rows: the best so many of the batch; parts: of a model in parts the first
    so many, None where it was asked for the whole at once."""

    rows: int
    parts: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer.

    request: what was asked, as JSON values: n, recent_items, exclude, deadline_ms; where the ids are too many to log, items_named
    says how many instead. generation, version, arm: see Exposure.
    nearline: the user's features at the basis; none where Redis did not answer. items: the first of the list as it was
    shown, as many as have features, all of a short list; scores: float32 [items]; list_digest: of the whole list, see
    `digest_of`. features: float32 [m, columns], m <= items, rows aligned with items; `columns` names them. decided_by,
    degraded, stage_ms, skipped, extents: see Outcome.
    """

    request_id: str
    user_id: UserId
    request: Mapping[str, object]
    generation: int
    version: VersionName
    arm: Arm
    basis: Basis
    nearline: Mapping[str, FeatureValue]
    items: tuple[ItemId, ...]
    scores: Float32s
    list_digest: str
    columns: tuple[str, ...]
    features: Float32s
    decided_by: str
    degraded: bool
    stage_ms: Mapping[str, float]
    skipped: Mapping[str, str]
    extents: Mapping[str, Extent] = field(default_factory=dict)


def digest_of(items: Sequence[str], scores: Float32s) -> str:
    """SHA-256 over a whole list: ids in order, each with its score to the bit."""
    hashed = hashlib.sha256("\0".join(items).encode())
    hashed.update(np.ascontiguousarray(scores, "<f4").tobytes())
    return hashed.hexdigest()


def rows_that_fit(columns: int) -> int:
    """How many feature vectors of that many float32 an answer may log."""
    return MAX_FEATURE_BYTES // max(1, 4 * columns)
