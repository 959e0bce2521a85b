"""network: the snapshot's neural network as a scorer: orders the head of the list anew, by the session's last items as well."""

from __future__ import annotations

from functools import partial

import numpy as np

from bentos.ranking.content import NETWORK
from bentos.ranking.features import STORED
from bentos.ranking.query import RankingQuery
from bentos.ranking.sources import recent_items
from bentos.ranking.stages import FEATURES
from infra.cascade.batch import Batch
from infra.cascade.kinds import Scorer
from infra.cascade.lane import Lane
from infra.catalog.features.ranking import LAST_ITEMS, LIGHT_FEATURES, RANKER_FEATURES, light_scores, network_matrix
from infra.contracts.candidates import Float32s
from infra.contracts.errors import ContractViolation, DependencyUnavailable

_LIGHT = [RANKER_FEATURES.index(name) for name in LIGHT_FEATURES]


class NetworkScorer(Scorer[RankingQuery]):
    """One call of ONNX Runtime for the rows that it is given, at most NETWORK_HEAD in the feed's cascade."""

    name = NETWORK

    def __init__(self, lane: Lane | None) -> None:
        """lane: where native calls run, so that the event loop stays free; None: in the event loop itself."""
        self._lane = lane

    def applies(self, query: RankingQuery) -> bool:
        content = query.snapshot.content
        has_parts = content.network is not None and content.light is not None
        return query.has_candidates and has_parts and NETWORK not in content.off

    async def score(self, query: RankingQuery, batch: Batch) -> Float32s:
        """float32 [n]. Raises KeyError where features are missing, DependencyUnavailable where the trees did not score: their
        scores are an input."""
        content = query.snapshot.content
        if content.network is None or content.light is None:
            raise ContractViolation("The snapshot has no network.")
        features = batch.columns[FEATURES].astype(np.float32, copy=False)
        light = light_scores(content.light, [features[:, column] for column in _LIGHT])
        if any(np.array_equal(batch.scores, before) for before in (light, batch.columns[STORED])):
            raise DependencyUnavailable("The network wants the scores of the trees, which did not score.")
        products = np.zeros((len(batch), LAST_ITEMS), np.float32)
        if content.vectors is not None:
            products = content.vectors.matches(batch.ids, recent_items(query), each=LAST_ITEMS)[:, 1:]
        rows = network_matrix(features, trees=batch.scores, light=light, products=products)
        call = partial(content.network.scores, rows)
        return call() if self._lane is None else await self._lane.run(call)
