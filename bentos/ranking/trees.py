"""trees: the snapshot's XGBoost ranker as a scorer; where time is short it does its first trees on the best rows."""

from __future__ import annotations

from functools import partial

import numpy as np
import xgboost

from bentos.ranking.query import RankingQuery
from bentos.ranking.stages import FEATURES
from bentos.web.batching import Batcher
from infra.cascade.batch import Batch
from infra.cascade.kinds import AnytimeScorer, Partial
from infra.cascade.lane import Lane
from infra.contracts.candidates import Float32s
from infra.resilience.deadline import Deadline

SLICE = 25
"""Trees between two looks at the clock: 1000 rows take some 0.35 ms."""

_WAY_BACK_MS = 0.5
"""What is kept back for the way from the native thread to the event loop."""


MOST_ROWS = 4000
"""Of a native call that concurrent requests share. Of 300 trees a call of one row is nearly all overhead, of 200 rows a third of
it, of 1000 rows a tenth (`make bench-cascade`): beyond some thousands nothing is gained, and the first waits for the last."""

_UNHURRIED_MS = 3_600_000.0


class RankerScorer(AnytimeScorer[RankingQuery]):
    """All candidates in one native call, which concurrent requests share; or slice by slice of the trees, which add up to the
    whole, until the time is used."""

    name = "ranker"

    def __init__(self, lane: Lane | None) -> None:
        """lane: where native calls run, so that the event loop stays free; None: in the event loop itself."""
        self._lane = lane
        self._batcher = None if lane is None else Batcher(lane, predict, most_rows=MOST_ROWS)
        if self._batcher is not None:
            self.work = self._batcher.cost

    def applies(self, query: RankingQuery) -> bool:
        return query.has_candidates and self.name not in query.snapshot.content.off

    def parts(self, query: RankingQuery) -> int:
        return max(1, -(-query.snapshot.content.ranker.num_boosted_rounds() // SLICE))

    async def score(self, query: RankingQuery, batch: Batch) -> Float32s:
        """float32 [n], the sum of the trees. Raises KeyError where the features are missing."""
        return await self.score_by(query, batch, Deadline.after_ms(_UNHURRIED_MS))

    async def score_by(self, query: RankingQuery, batch: Batch, deadline: Deadline) -> Float32s:
        """The same, for a caller who waits until then; raises DeadlineExceeded where it would not end in time."""
        ranker, features = query.snapshot.content.ranker, batch.columns[FEATURES].astype(np.float32, copy=False)
        if self._batcher is None:
            return predict(ranker, features)
        return await self._batcher.score(ranker, features, deadline)

    async def score_parts(self, query: RankingQuery, batch: Batch, deadline: Deadline, *, most: int) -> Partial:
        """Slices of SLICE trees, summed in float32 in their order."""
        features = batch.columns[FEATURES].astype(np.float32, copy=False)
        call = partial(_slices, query.snapshot.content.ranker, features, deadline, most=most)
        if self._lane is None or self._batcher is None:
            return call()
        sliced = await self._lane.run(call)
        if sliced.done:
            self._batcher.cost.note(len(features), sliced.work_ms * self.parts(query) / sliced.done)
        return sliced


def predict(ranker: xgboost.Booster, features: Float32s) -> Float32s:
    """[n, features] -> float32 [n]; each row's score is the same to the bit whatever other rows there are."""
    if not len(features):
        return np.empty(0, np.float32)
    return np.asarray(ranker.inplace_predict(features, validate_features=False), np.float32)


def _slices(ranker: xgboost.Booster, features: Float32s, deadline: Deadline, *, most: int) -> Partial:
    """The next slice is begun where the longest one so far would still end in time."""
    total = np.zeros(len(features), np.float32)
    trees, longest_ms, done = ranker.num_boosted_rounds(), 0.0, 0
    began_ms = deadline.remaining_ms()
    while done < most:
        before_ms = deadline.remaining_ms()
        if before_ms < longest_ms + _WAY_BACK_MS:
            break
        if len(features):
            cut = (done * SLICE, min(trees, (done + 1) * SLICE))
            total += ranker.inplace_predict(features, iteration_range=cut, validate_features=False)
        done += 1
        longest_ms = max(longest_ms, before_ms - deadline.remaining_ms())
    return Partial(total, done, began_ms - deadline.remaining_ms())
