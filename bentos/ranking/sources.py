"""sources: candidates that no batch worked out: what goes with the items that the user took just now."""

from __future__ import annotations

from functools import partial

import numpy as np

from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import Reader
from bentos.ranking.stages import RANK
from infra.cascade.batch import Batch
from infra.cascade.kinds import Found, Source
from infra.cascade.lane import Lane
from infra.catalog.features.ranking import RECENT
from infra.contracts.candidates import ScoreMap

FRESH = "fresh"
"""The source's name, as the answer tells it."""

_LONG = 10_000
"""From so many items on the search leaves the event loop: it takes some 0.2 ms then, as long as going to a thread and back."""

_NOTHING = Found(np.empty(0, np.int32), np.empty(0, np.float32))


def recent_items(query: RankingQuery) -> list[int]:
    """Item indices that the user took in this session or since the batch, newest first; those without a vector are left out."""
    n_items = query.snapshot.content.n_items
    return [item for item in dict.fromkeys([*query.session, *query.overlay]) if item < n_items][:RECENT]


def why_fresh(query: RankingQuery, item: int) -> str:
    """In words."""
    vectors, recent = query.snapshot.content.vectors, recent_items(query)
    if vectors is None or not recent:
        return ""
    face = query.board.face(vectors.nearest(recent, item))
    return f"like your “{query.snapshot.content.items.titles[face]}”"


class FreshSource(Source[RankingQuery]):
    """The items nearest to a vector made of the user's recent items alone, as the embedder would make it of them.

    Scores are on the scale of the stored ones: both vectors have length 1 and go through the snapshot's map. So is the rank: the
    position in a list of the best by one vector, which is what the ranker learnt it to be; to go on behind the user's own list
    would tell the ranker that the best of them are worse than all that batch found.
    """

    name = FRESH

    def __init__(self, reader: Reader, lane: Lane | None) -> None:
        """lane: where long searches run, so that the event loop stays free; None: in the event loop itself."""
        self._reader = reader
        self._lane = lane

    def applies(self, query: RankingQuery) -> bool:
        return query.snapshot.content.vectors is not None and bool(query.session or query.overlay)

    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        """At most TAKEN, none of them consumed. Raises DependencyUnavailable where it cannot be read what was.

        What it read of that, the query learns at the end: of a source that fails nothing is left, in an answer or in its replay.
        """
        vectors, recent = query.snapshot.content.vectors, recent_items(query)
        if vectors is None or not recent:
            return _NOTHING
        consumed, older = query.removable, None
        if query.may_have_older:
            older = await self._reader.older(query)
            consumed = np.concatenate([consumed, older])
        score_map = ScoreMap(query.snapshot.manifest.score_scale)
        search = partial(vectors.fresh, recent, hidden=consumed, score_map=score_map)
        if self._lane is None or len(vectors.searched) < _LONG:
            ids, scores = search()
        else:
            ids, scores = await self._lane.run(search)
        query.older = older
        return Found(ids, scores.astype(np.float32), {RANK: np.arange(len(ids), dtype=np.int32)})
