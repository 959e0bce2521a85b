"""stages: what the feed's cascade is made of, one class a stage."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.pinned_labels import labels_of
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import Reader
from infra.cascade.batch import Batch, Column
from infra.cascade.kinds import Filter, Found, Hydrator, Removal, Selector, Source
from infra.contracts.candidates import Float32s, Int32s

RETRIEVAL, POPULAR, BACKFILL = "retrieval", "popular", "backfill"
"""The sources' names, as the answer tells them."""

RANK = "rank"
"""Column: int32 [n], the candidate's position in the batch's list; see the other sources for theirs."""

FEATURES = "features"
"""Column: float32 [n, len(RANKER_FEATURES)]."""

_LOOK_AT = 64
"""Rows of a ranked list that the diversity rule takes at a time: most lists are full after the first."""

_FEW = 64
"""Up to this many items comparing each with each beats sorting: 1000 candidates and 20 items take 8 us instead of 28."""


def among(ids: Int32s, items: Int32s) -> NDArray[np.bool_]:
    """bool [len(ids)]: which ids are among the items."""
    if len(items) > _FEW:
        return np.isin(ids, items)
    return np.logical_or.reduce(ids[None, :] == items[:, None], axis=0)


def below(batch: Batch, n: int) -> Float32s:
    """float32 [n]: scores that go on from the lowest of the batch in steps of one."""
    lowest = float(batch.scores.min()) if len(batch) else 0.0
    return (lowest - np.arange(1, n + 1)).astype(np.float32)


class RetrievalSource(Source[RankingQuery]):
    """The candidates that batch worked out for this user."""

    name = RETRIEVAL

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def applies(self, query: RankingQuery) -> bool:
        """Of nobody nothing is known."""
        return bool(query.user_id)

    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        """The user's list as it is stored; nothing for a user whom batch did not know."""
        await self._reader.read(query)
        if query.record is None:
            return Found(np.empty(0, np.int32), np.empty(0, np.float32))
        ids = query.record.item_indices
        return Found(ids, query.record.scores.astype(np.float32), {RANK: np.arange(len(ids), dtype=np.int32)})


class PopularSource(Source[RankingQuery]):
    """What many took lately: for users without a list of their own, and for all while Redis is away.

    Not for one whose history is longer than the record: what it brings may have been consumed long ago, which no filter knows.
    BackfillSource brings the same, once that was read.
    """

    name = POPULAR

    def applies(self, query: RankingQuery) -> bool:
        return not query.has_candidates and not query.may_have_older

    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        """The snapshot's popular list, long enough for what filters may take, below what other sources brought."""
        content = query.snapshot.content
        wanted = query.n + len(query.excluded) + len(query.removable)
        if query.rules.denies or query.rules.boosts or query.board.unavailable is not None:
            wanted = len(content.popular)
        ids = content.popular[:wanted]
        return Found(ids, below(batch, len(ids)) if len(batch) else content.popular_scores[:wanted])


class ConsumedFilter(Filter[RankingQuery]):
    """Takes out what the user has consumed: in the batch's history, since then, or in this session."""

    name = "consumed"

    def applies(self, query: RankingQuery) -> bool:
        return len(query.removable) > 0

    async def remove(self, query: RankingQuery, batch: Batch) -> list[Removal]:
        """One removal a place where it was seen."""
        history = query.record.history if query.record is not None else np.empty(0, np.int32)
        seen = (("in this session", query.session), ("since the batch", query.overlay), ("before the batch", history))
        return [
            Removal(among(batch.ids, np.asarray(items, np.int32)), f"consumed {when}")
            for when, items in seen
            if len(items)
        ]


class ExcludedFilter(Filter[RankingQuery]):
    """Takes out what the request does not want."""

    name = "excluded"

    def applies(self, query: RankingQuery) -> bool:
        return len(query.excluded) > 0

    async def remove(self, query: RankingQuery, batch: Batch) -> list[Removal]:
        """Everything that `exclude` names."""
        return [Removal(among(batch.ids, query.excluded), "excluded by the request")]


class OlderConsumedHydrator(Hydrator[RankingQuery]):
    """Reads what a user with a long history consumed earlier, for the rare list that must be filled up; adds no column."""

    name = "older_consumed"

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def applies(self, query: RankingQuery) -> bool:
        return query.may_have_older and query.may_fall_short

    async def hydrate(self, query: RankingQuery, batch: Batch) -> Mapping[str, Column]:
        """Let the query learn it where the batch is too short and nobody has read it."""
        if len(batch) < query.n and query.older is None:
            query.older = await self._reader.older(query)
        return {}


class BackfillSource(Source[RankingQuery]):
    """Fills a list that filters made shorter than was asked for: popular first, then the whole catalogue by popularity.

    Where it could not be read what a user consumed earlier, the list stays short: nothing already consumed comes back.
    """

    name = BACKFILL

    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        """What is missing to n, below everything that is there: scores go on from the lowest in steps of one."""
        missing = query.n - len(batch)
        older = query.older if query.may_have_older else np.empty(0, np.int32)
        if missing <= 0 or older is None:
            return Found(np.empty(0, np.int32), np.empty(0, np.float32))
        order = query.snapshot.content.backfill
        taken = np.zeros(len(query.snapshot.content.items.item_ids), np.bool_)
        for items in (batch.ids, query.removable, older, query.excluded):
            taken[items] = True
        if query.board.unavailable is not None:
            taken |= query.board.unavailable
        free = order[~taken[order]]
        if query.rules.denies:
            free = await query.rules.first_allowed(labels_of(query.snapshot.content), query.board, free, missing)
        ids = free[:missing]
        return Found(ids, below(batch, len(ids)))


class DiversitySelector(Selector[RankingQuery]):
    """The best n, of which at most a share carry any one genre or come from any one creator.

    Greedy in score order (ties as the sources ordered them): an item is passed over when one of its genres or its creator already
    has its share. Where that leaves fewer than n, the best passed over fill up, so that the rule never shortens a list. The
    chosen items are shown in score order.
    """

    name = "diversity"

    def __init__(self, *, genre_share_fraction: float, creator_share_fraction: float) -> None:
        self._genre_share = genre_share_fraction
        self._creator_share = creator_share_fraction

    async def select(self, query: RankingQuery, batch: Batch) -> NDArray[np.integer]:
        """Positions of at most n candidates, best first."""
        order = np.argsort(-batch.scores, kind="stable")
        if len(order) <= query.n:
            return order
        content = query.snapshot.content
        genre_cap = max(1, math.ceil(self._genre_share * query.n))
        creator_cap = max(1, math.ceil(self._creator_share * query.n))
        of_genre: Counter[int] = Counter()
        of_creator: Counter[int] = Counter()
        chosen: list[int] = []
        passed: list[int] = []
        for start in range(0, len(order), _LOOK_AT):
            faces = query.board.faces_of(batch.ids[order[start : start + _LOOK_AT]])
            creators: list[int] = content.items.columns.creators[faces].tolist()
            for place, (face, creator) in enumerate(zip(faces.tolist(), creators, strict=True), start):
                genres = content.item_genres[face]
                full = creator >= 0 and of_creator[creator] >= creator_cap
                if full or any(of_genre[genre] >= genre_cap for genre in genres):
                    passed.append(place)
                    continue
                of_genre.update(genres)
                of_creator[creator] += 1
                chosen.append(place)
                if len(chosen) == query.n:
                    return order[chosen]
        chosen = sorted(chosen + passed[: query.n - len(chosen)])
        return order[chosen]


class TopSelector(Selector[RankingQuery]):
    """The best n by their scores: what is shown where no finer rule has chosen."""

    name = "top"

    async def select(self, query: RankingQuery, batch: Batch) -> NDArray[np.integer]:
        """Positions of at most n candidates; what was already chosen stays as it is."""
        if len(batch) <= query.n:
            return np.arange(len(batch))
        return np.argsort(-batch.scores, kind="stable")[: query.n]
