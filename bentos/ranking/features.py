"""features: what the scorers look at: how the candidates match what was taken just now, and the ranker's input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bentos.ranking.query import RankingQuery
from bentos.ranking.sources import recent_items
from bentos.ranking.stages import FEATURES, RANK
from infra.cascade.batch import Batch, Column
from infra.cascade.kinds import Hydrator
from infra.catalog.features.ranking import Moment, ranker_matrix
from infra.contracts.candidates import Float32s
from infra.contracts.features import FeatureValue

STORED = "stored"
"""Column: float32 [n], the scores as the sources brought them."""

MATCHES = "matches"
"""Column: float32 [n, 2], see VectorSearch.matches."""

_HOUR_US = 3_600_000_000


def moment_of(query: RankingQuery) -> Moment:
    """What is known of the request's moment. Whom the stream could not be asked about counts as one who did nothing."""
    hour = query.now_us // _HOUR_US % 24 if query.hour is None else query.hour
    return Moment(
        clicks_last_hour=_count(query.nearline.get("clicks_last_hour")),
        purchases_last_hour=_count(query.nearline.get("purchases_last_hour")),
        clicks_in_session=_count(query.nearline.get("clicks_in_session")),
        recent=np.array(recent_items(query), np.int32),
        trending=query.board.trending,
        trending_counts=query.board.trending_counts,
        hour=hour,
        device=query.device,
    )


class MatchHydrator(Hydrator[RankingQuery]):
    """Adds how the candidates match what the user took just now, and keeps the scores that the sources gave them."""

    name = "matches"

    def applies(self, query: RankingQuery) -> bool:
        return query.has_candidates

    async def hydrate(self, query: RankingQuery, batch: Batch) -> Mapping[str, Column]:
        """float32 [n] and float32 [n, 2]."""
        return {STORED: batch.scores, MATCHES: _matches(query, batch)}


class FeatureHydrator(Hydrator[RankingQuery]):
    """Adds the ranker's input."""

    name = "features"

    def applies(self, query: RankingQuery) -> bool:
        return query.has_candidates

    async def hydrate(self, query: RankingQuery, batch: Batch) -> Mapping[str, Column]:
        """float32 [n, features], by the function that training uses."""
        record = query.record
        if record is None or RANK not in batch.columns:
            return {}
        matches = batch.columns.get(MATCHES)
        matrix = ranker_matrix(
            record.features,
            query.snapshot.content.items.columns,
            item_indices=batch.ids,
            scores=batch.columns.get(STORED, batch.scores).astype(np.float32, copy=False),
            ranks=batch.columns[RANK].astype(np.int32, copy=False),
            best_score=float(record.scores[0]),
            history=query.history,
            moment=moment_of(query),
            matches=_matches(query, batch) if matches is None else matches.astype(np.float32, copy=False),
        )
        return {FEATURES: matrix}


def _matches(query: RankingQuery, batch: Batch) -> Float32s:
    vectors = query.snapshot.content.vectors
    if vectors is None:
        return np.zeros((len(batch), 2), np.float32)
    return vectors.matches(batch.ids, recent_items(query))


def _count(value: FeatureValue | None) -> int:
    return value if isinstance(value, int) else 0
