"""rules: the stages that keep a request's business rules: a filter, pins as a source and in the selection, a boost."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.pinned_labels import labels_of
from bentos.ranking.query import RankingQuery, item_index
from bentos.ranking.reader import Reader
from bentos.ranking.stages import RANK, among, below
from infra.cascade.batch import Batch, Outcome
from infra.cascade.kinds import Filter, Found, Removal, Scorer, Selector, Source
from infra.contracts.candidates import Float32s

PINNED = "pinned"
"""The source's name, as the answer tells it."""


class PinnedSource(Source[RankingQuery]):
    """What the request pins and no other source brought: the filters see it as they see all, the ranker scores it."""

    name = PINNED

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def applies(self, query: RankingQuery) -> bool:
        return bool(query.rules.pins)

    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        """All pinned items, as if they came last on the user's list, or below what other sources brought; but for what the user
        consumed before the oldest item of a full history, which no filter knows. Raises DependencyUnavailable."""
        ids = np.fromiter(query.rules.pins, np.int32)
        if query.may_have_older:
            older = query.older if query.older is not None else await self._reader.older(query)
            query.older, ids = older, ids[~among(ids, older)]
        record = query.record
        if record is None or not query.has_candidates:
            return Found(ids, below(batch, len(ids)))
        n = len(record.scores)
        ranks = np.arange(n, n + len(ids), dtype=np.int32)
        return Found(ids, np.full(len(ids), float(record.scores[-1]), np.float32), {RANK: ranks})


class RulesFilter(Filter[RankingQuery]):
    """Takes out what the request's rules deny, pinned or not."""

    name = "rules"

    def applies(self, query: RankingQuery) -> bool:
        return query.rules.denies

    async def remove(self, query: RankingQuery, batch: Batch) -> list[Removal]:
        """One removal a kind of rule."""
        labels, faces = labels_of(query.snapshot.content), query.board.faces_of(batch.ids)
        return [Removal(rows, because) for rows, because in query.rules.denied(labels, faces)]


class BoostScorer(Scorer[RankingQuery]):
    """Moves what the request boosts: an item stands where its place, divided by its factor, puts it among the others'.

    Places, because they mean the same whatever scored (a margin of trees, a network, counts of the popular list): a factor of 2
    brings place 20 to where place 10 is. Ties go to the item that stood first. The scores are then -0, -1, -2... down the list.
    """

    name = "boost"

    def applies(self, query: RankingQuery) -> bool:
        return query.rules.boosts

    async def score(self, query: RankingQuery, batch: Batch) -> Float32s:
        """float32 [n]: minus the new place, counted from 0."""
        order = np.argsort(-batch.scores, kind="stable")
        ids = batch.ids[order]
        factors = query.rules.factors(labels_of(query.snapshot.content), ids, query.board.faces_of(ids))
        moved = order[np.argsort(np.arange(1, len(order) + 1) / factors, kind="stable")]
        scores = np.empty(len(order), np.float32)
        scores[moved] = -np.arange(len(order), dtype=np.float32)
        return scores


class PinsSelector(Selector[RankingQuery]):
    """Another selector's choice among what is not pinned, and the pinned items at their places, whatever that selector caps.

    A place beyond the end of a list that is shorter than was asked for is its end.
    """

    def __init__(self, others: Selector[RankingQuery]) -> None:
        self.name = others.name
        self._others = others

    def applies(self, query: RankingQuery) -> bool:
        return self._others.applies(query)

    async def select(self, query: RankingQuery, batch: Batch) -> NDArray[np.integer]:
        """Positions of at most n candidates, in the order to show."""
        places = query.rules.pins
        if not places:
            return await self._others.select(query, batch)
        is_pinned = np.isin(batch.ids, np.fromiter(places, np.int32))
        pinned, rest = np.flatnonzero(is_pinned), np.flatnonzero(~is_pinned)
        chosen: list[int] = []
        if len(pinned) < query.n:
            fewer = copy(query)
            fewer.n = query.n - len(pinned)
            chosen = rest[await self._others.select(fewer, batch.take(rest))].tolist()
        for row in sorted(pinned.tolist(), key=lambda row: places[int(batch.ids[row])]):
            chosen.insert(places[int(batch.ids[row])] - 1, row)
        return np.array(chosen, np.int64)


def not_pinned(query: RankingQuery, pinned: Iterable[str], outcome: Outcome) -> dict[str, str]:
    """Item id -> why it is not shown, of those pinned that are not."""
    shown, told = set(outcome.batch.ids.tolist()), {}
    for item_id in pinned:
        index = item_index(query.snapshot, item_id, query.board)
        if index is None:
            told[item_id] = "not in the catalogue"
        elif index not in shown:
            by_filter = (gone.because for gone in outcome.removed if index in gone.ids)
            long_ago = query.older is not None and index in query.older
            told[item_id] = next(by_filter, "consumed long ago" if long_ago else "not found: see skipped")
    return told
