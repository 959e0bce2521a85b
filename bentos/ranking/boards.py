"""boards: candidates from the boards of the stream: what many take at this moment, and what is newer than the snapshot."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.new_items import FeedBoard
from bentos.ranking.query import PLAN, RankingQuery
from bentos.ranking.stages import RANK, among, below
from infra.cascade.batch import Batch
from infra.cascade.kinds import Found, Source
from infra.contracts.candidates import Float32s, Int32s

TRENDING, NEW = "trending", "new"
"""The sources' names, as the answer tells them."""

_TRENDING = next(spec for spec in PLAN.of("item", boards=True) if spec.name == "trending_clicks")

TRENDING_TAKEN = 20
NEW_TAKEN = 10
"""Items that each brings."""

_LEAST = 3
"""Clicks, ratings and purchases of an hour from which an item is trending: one visitor's click puts nothing before everybody."""

_FIRST_NEW, _EVERY = 4, 10
"""Where nothing ranks them, new items stand behind the fifth candidate, and behind each tenth after it."""


def why_trending(board: FeedBoard, item: int) -> str:
    """In words."""
    return f"{int(board.trending_counts[board.trending == item].sum()):,} {_TRENDING.unit}"


def why_new(board: FeedBoard, item: int) -> str:
    """In words."""
    at_ms = int(board.newest_ms[board.newest == item].sum())
    return f"new since {datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _wanted(query: RankingQuery, items: Int32s) -> NDArray[np.bool_]:
    """bool: which of them may be shown."""
    return ~among(items, query.removable) & ~among(items, query.excluded) & query.board.available(items)


def _beside_the_list(query: RankingQuery, ids: Int32s) -> Found:
    """For a user with a list: as if they came last on it, for nothing says that they match the user; the ranker sees the rest."""
    record = query.record
    listed = record.scores if record is not None else np.empty(0, np.float16)
    lowest = float(listed[-1]) if len(listed) else 0.0
    ranks = np.arange(len(listed), len(listed) + len(ids), dtype=np.int32)
    return Found(ids, np.full(len(ids), lowest, np.float32), {RANK: ranks})


class TrendingSource(Source[RankingQuery]):
    """What many take at this moment: a handful beside a user's list; for users without one before the popular items.

    Of a user whose history is longer than the record it brings items that the snapshot knows only where another source has read the
    whole history, so that nothing consumed long ago comes back: a first page is not worth a round trip more.
    """

    name = TRENDING

    def applies(self, query: RankingQuery) -> bool:
        return len(query.board.trending) > 0 and int(query.board.trending_counts[0]) >= _LEAST

    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        """At most TRENDING_TAKEN, most taken first; for users without a list below what is there, or by their counts."""
        items = query.board.trending
        wanted = _wanted(query, items) & (query.board.trending_counts >= _LEAST)
        if query.may_have_older:
            wanted &= items >= query.snapshot.content.n_items if query.older is None else ~among(items, query.older)
        rows = np.flatnonzero(wanted)[:TRENDING_TAKEN]
        ids = items[rows]
        if query.has_candidates:
            return _beside_the_list(query, ids)
        return Found(
            ids, below(batch, len(ids)) if len(batch) else query.board.trending_counts[rows].astype(np.float32)
        )


class NewItemSource(Source[RankingQuery]):
    """A few of the items that are newer than the snapshot."""

    name = NEW

    def applies(self, query: RankingQuery) -> bool:
        return len(query.board.newest) > 0

    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        """At most NEW_TAKEN, newest first."""
        ids = query.board.newest[_wanted(query, query.board.newest)][:NEW_TAKEN]
        if query.has_candidates:
            return _beside_the_list(query, ids)
        return Found(ids, _between(batch, len(ids)))


def _between(batch: Batch, n: int) -> Float32s:
    """float32 [n]: the score of the candidate that each is to follow; later sources come behind equal scores."""
    falling = -np.sort(-batch.scores)
    places = _FIRST_NEW + _EVERY * np.arange(n)
    there = places < len(falling)
    scores = below(batch, n)
    scores[there] = falling[places[there]]
    return scores
