"""rows: scores of feature rows by the live snapshot's ranker, for callers who have the features themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
from bentoml.exceptions import ServiceUnavailable
from bentoml.validators import DType, Shape
from pydantic import BeforeValidator

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.trees import predict
from infra.cascade.lane import Lane
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.errors import DependencyUnavailable, SnapshotError

MAX_ROWS = 10_000
"""Of one call."""

BATCHED_ROWS = 4000
"""Of a native call that BentoML makes of concurrent requests; a larger request is cut."""

LATEST_MS = 1000
"""A request that BentoML expects to wait longer for its batch gets a 503."""


def _checked(rows: object) -> np.ndarray:
    """Raises ValueError; before the batch is made, so that a bad request spoils nobody else's."""
    try:
        matrix = np.asarray(rows, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError("not a matrix of numbers") from error
    if matrix.ndim != 2 or matrix.shape[1] != len(RANKER_FEATURES) or not 1 <= len(matrix) <= MAX_ROWS:
        seen, wanted = list(matrix.shape), f"[1 to {MAX_ROWS:,}, {len(RANKER_FEATURES)}]"
        raise ValueError(f"the shape is {seen}; wanted {wanted}: one row an item, one column a feature")
    if not np.isfinite(matrix).all():
        raise ValueError("holds NaN, Infinity or what float32 cannot hold")
    return matrix


Rows = Annotated[np.ndarray, DType("float32"), Shape((-1, len(RANKER_FEATURES))), BeforeValidator(_checked)]
Scores = Annotated[np.ndarray, DType("float32"), Shape((-1,))]


class RowScorer:
    """All rows of a batch by one snapshot, in one native call."""

    def __init__(self, pin: Callable[[], RankingSnapshot], lane: Lane) -> None:
        self._pin = pin
        self._lane = lane

    async def score(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, features] -> float32 [n]. Raises ServiceUnavailable, which BentoML answers with 503."""
        try:
            return await self._lane.run(partial(predict, self._pin().content.ranker, rows))
        except (DependencyUnavailable, SnapshotError) as error:
            raise ServiceUnavailable(str(error)) from error
