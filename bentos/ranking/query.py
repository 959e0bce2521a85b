"""query: one request for recommendations, and what its stages have learnt about the user so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.schema import RecommendRequest
from infra.contracts.candidates import MAX_HISTORY, Int32s, UserRecord

_NONE = np.empty(0, np.int32)


@dataclass(slots=True)
class RankingQuery:
    """What the stages read, and what the first of them learns.

    session, excluded: item indices that the request names, newest first. record: None for a user whom batch did not know, and
    while nothing was read. overlay: item indices consumed since the batch, newest first. consumed: int32, every item known to
    be consumed, newest first, each once: session, then overlay, then the batch's history. older: int32, what was consumed
    before the oldest item of a full history; None until it was read.
    """

    snapshot: RankingSnapshot
    user_id: str
    n: int
    session: list[int]
    excluded: Int32s
    record: UserRecord | None = None
    overlay: list[int] = field(default_factory=list)
    consumed: Int32s = field(init=False)
    older: Int32s | None = None

    @classmethod
    def of(cls, request: RecommendRequest, snapshot: RankingSnapshot) -> Self:
        """What that request asks of that snapshot; items that it has not are left out."""
        return cls(
            snapshot=snapshot,
            user_id=request.user_id,
            n=request.n,
            session=known_items(snapshot, request.context.recent_items),
            excluded=np.array(known_items(snapshot, request.exclude), np.int32),
        )

    def __post_init__(self) -> None:
        self.learn(None, [])

    def learn(self, record: UserRecord | None, overlay: list[int]) -> None:
        """Take in what Redis knows of the user."""
        self.record, self.overlay = record, overlay
        batch: list[int] = record.history.tolist() if record is not None else []
        self.consumed = np.fromiter(dict.fromkeys([*self.session, *overlay, *batch]), np.int32)

    @property
    def has_candidates(self) -> bool:
        """Whether batch worked out a list for this user."""
        return self.record is not None and len(self.record.item_indices) > 0

    @property
    def may_have_older(self) -> bool:
        """Whether the user may have consumed more than the record holds, so that what fills up a list might be among it."""
        full = self.record is not None and len(self.record.history) >= MAX_HISTORY
        return full and not self.snapshot.manifest.include_seen

    @property
    def may_fall_short(self) -> bool:
        """Whether filters might leave fewer than n of the user's list, which holds nothing of the batch's own history."""
        listed = len(self.record.item_indices) if self.record is not None else 0
        return listed - len(self.session) - len(self.overlay) - len(self.excluded) < self.n

    @property
    def history(self) -> Int32s:
        """What the cross features look at: the newest MAX_HISTORY consumed items, as in training."""
        return self.consumed[:MAX_HISTORY]

    @property
    def removable(self) -> Int32s:
        """Consumed items that must not be shown again; none where the snapshot was built to include them."""
        return _NONE if self.snapshot.manifest.include_seen else self.consumed


def known_items(snapshot: RankingSnapshot, item_ids: Iterable[str]) -> list[int]:
    """The item indices of those ids that the snapshot has, in order; ids it has not are left out."""
    return [at for at in map(snapshot.content.items.index_of.get, item_ids) if at is not None]
