"""query: one request for recommendations, and what its stages have learnt about the user so far."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.new_items import NO_FEED_BOARD, FeedBoard
from bentos.ranking.rulebook import NO_RULES, Rulebook
from bentos.ranking.schema import RecommendRequest
from infra.catalog.features.nearline import plan_of
from infra.contracts.candidates import MAX_HISTORY, Int32s, UserRecord
from infra.contracts.features import FeaturePlan, FeatureValue
from infra.nearline.boards import Board
from infra.nearline.pending import Seen
from infra.resilience.deadline import Deadline

_NONE = np.empty(0, np.int32)

PLAN: FeaturePlan = plan_of("ranking")
_CONSUMING = next(spec.events for spec in PLAN.of("user") if spec.name == "recent_items")


@dataclass(slots=True)
class RankingQuery:
    """What the stages read, and what the first of them learns.

    now_us: the moment that nearline features are worth something at, microseconds since 1970. session, excluded: item indices that
    the request names, newest first. record: None for a user whom batch did not know, and while nothing was read. seen: what
    the stream knew of the user when it was read; nearline: the features of it. overlay: item indices consumed since the batch,
    newest first. consumed: int32, every item known to be consumed, newest first, each once: session, then overlay, then the
    batch's history. older: int32, what was consumed before the oldest item of a full history; None until it was read.
    board: what many take and what is new, as it was when the request began; items that neither it nor the snapshot has do not
    exist. rules: what the request denies, boosts and pins. hour: of the caller's day, 0..23, None where not said; device: of
    DEVICES, or empty. user_id: empty where nobody is known to ask. deadline: when nobody waits
    any longer for what is read; None: whenever it comes.
    """

    snapshot: RankingSnapshot
    user_id: str
    n: int
    session: list[int]
    excluded: Int32s
    now_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    record: UserRecord | None = None
    seen: Seen | None = None
    nearline: dict[str, FeatureValue] = field(default_factory=dict)
    overlay: list[int] = field(default_factory=list)
    consumed: Int32s = field(init=False)
    older: Int32s | None = None
    board: FeedBoard = NO_FEED_BOARD
    rules: Rulebook = NO_RULES
    hour: int | None = None
    device: str = ""
    deadline: Deadline | None = None

    @classmethod
    def of(
        cls,
        request: RecommendRequest,
        snapshot: RankingSnapshot,
        *,
        board: Board | None = None,
        deadline: Deadline | None = None,
    ) -> Self:
        """What that request asks of that snapshot; items that it has not are left out. board: None for the newest one."""
        shelf = snapshot.content.shelf
        placed = shelf.current() if board is None else shelf.place(board)
        return cls(
            snapshot=snapshot,
            user_id=request.user_id,
            n=request.n,
            session=known_items(snapshot, request.context.recent_items, placed),
            excluded=np.array(known_items(snapshot, request.exclude, placed), np.int32),
            board=placed,
            deadline=deadline,
            hour=request.context.hour,
            device=request.context.device or "",
            rules=Rulebook.of(request.rules, lambda item_id: item_index(snapshot, item_id, placed)),
        )

    def __post_init__(self) -> None:
        self.learn(None, None)

    def learn(self, record: UserRecord | None, seen: Seen | None) -> None:
        """Take in what Redis knows of the user."""
        self.record, self.seen = record, seen
        self.nearline, self.overlay = {}, []
        if seen is not None:
            self.nearline = PLAN.features("user", seen.state, self.now_us)
            self.overlay = known_items(self.snapshot, self._just_consumed(seen), self.board)
        batch: list[int] = record.history.tolist() if record is not None else []
        self.consumed = np.fromiter(dict.fromkeys([*self.session, *self.overlay, *batch]), np.int32)

    def _just_consumed(self, seen: Seen) -> list[str]:
        """Item ids, newest first; also those of records that the state is still without."""
        recent = [str(item) for item in self.nearline["recent_items"]]  # type: ignore[union-attr]
        if seen.is_whole:
            return recent
        uncounted = [record for record in reversed(seen.pending_records) if record.event_type in _CONSUMING]
        return list(dict.fromkeys([*(record.item_id for record in uncounted), *recent]))

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
        if self.rules.denies or self.board.unavailable is not None:
            return True
        return listed - len(self.session) - len(self.overlay) - len(self.excluded) < self.n

    @property
    def history(self) -> Int32s:
        """What the cross features look at: the newest MAX_HISTORY consumed items, as in training."""
        return self.consumed[:MAX_HISTORY]

    @property
    def removable(self) -> Int32s:
        """Consumed items that must not be shown again; none where the snapshot was built to include them."""
        return _NONE if self.snapshot.manifest.include_seen else self.consumed


def known_items(snapshot: RankingSnapshot, item_ids: Iterable[str], board: FeedBoard = NO_FEED_BOARD) -> list[int]:
    """The item indices of those ids that the snapshot or the board has, in order; others are left out."""
    index_of, rows = snapshot.content.items.index_of, board.rows
    found = (index_of.get(item_id, rows.get(item_id)) for item_id in item_ids)
    return [at for at in found if at is not None]


def item_index(snapshot: RankingSnapshot, item_id: str, board: FeedBoard) -> int | None:
    """Its index; None where neither the snapshot nor the board has it."""
    return next(iter(known_items(snapshot, (item_id,), board)), None)
