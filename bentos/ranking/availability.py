"""availability: the filter of items that are not to be had at this moment, as the stream says."""

from __future__ import annotations

from bentos.ranking.query import RankingQuery
from infra.cascade.batch import Batch
from infra.cascade.kinds import Filter, Removal


class AvailableFilter(Filter[RankingQuery]):
    """Takes out what is said not to be available, whichever source brought it. What fills up later leaves it out itself."""

    name = "available"

    def applies(self, query: RankingQuery) -> bool:
        return query.board.unavailable is not None

    async def remove(self, query: RankingQuery, batch: Batch) -> list[Removal]:
        """All of them, by one look-up each."""
        return [Removal(~query.board.available(batch.ids), "not available")]
