"""rows: POST /score_rows: scores of feature rows by the live snapshot's ranker, for callers who have the features themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import numpy as np
from bentoml.exceptions import ServiceUnavailable
from bentoml.validators import DType, Shape
from pydantic import BaseModel, ConfigDict, FailFast, Field, RootModel

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.schema import MAX_DEADLINE_MS, MIN_DEADLINE_MS, STRICT
from bentos.ranking.trees import predict
from bentos.web.exchange import Exchange, Reply, json_reply
from bentos.web.front import Route
from infra.cascade.lane import Lane
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.errors import DeadlineExceeded, DependencyUnavailable
from infra.resilience.deadline import Deadline

WIDTH = len(RANKER_FEATURES)

MAX_ROWS = 10_000
"""Of one call."""

MAX_BODY_BYTES = 8 * 1024 * 1024
"""So many rows of numbers of 24 characters and some."""

BATCHED_ROWS = 4000
"""Of a native call that BentoML makes of concurrent requests; a larger request is cut."""

LATEST_MS = 1000
"""A request that BentoML expects to wait longer for its batch gets a 503."""

ROWS_BUDGET_MS = 10_000

_MOST = float(np.finfo(np.float32).max)

Rows = Annotated[np.ndarray, DType("float32"), Shape((-1, WIDTH))]
Scores = Annotated[np.ndarray, DType("float32"), Shape((-1,))]
Batched = Callable[[np.ndarray], Awaitable[np.ndarray]]

_Value = Annotated[float, Field(ge=-_MOST, le=_MOST)]
_Row = Annotated[list[_Value | None], Field(min_length=WIDTH, max_length=WIDTH), FailFast()]


class RowsRequest(BaseModel):
    """Rows of the ranker's features."""

    model_config = STRICT | ConfigDict(json_schema_extra={"examples": [{"rows": [[0.5] * WIDTH]}]})

    rows: Annotated[list[_Row], Field(min_length=1, max_length=MAX_ROWS), FailFast()] = Field(
        description="one row an item, one number a feature, null where it is unknown; in this order: "
        + ", ".join(RANKER_FEATURES)
    )
    deadline_ms: float | None = Field(
        None,
        ge=MIN_DEADLINE_MS,
        le=MAX_DEADLINE_MS,
        description=f"answer within, {ROWS_BUDGET_MS:,} where it is not said; rows are scored whole or not at all",
    )


class RowsReply(RootModel[list[float]]):
    """One score a row, in the order sent."""


class RowScorer:
    """All rows of a batch by one snapshot, in one native call."""

    def __init__(self, pin: Callable[[], RankingSnapshot], lane: Lane) -> None:
        self._pin = pin
        self._lane = lane

    async def score(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, features], NaN where unknown -> float32 [n]. Raises SnapshotNotFound, LaneBusy."""
        return await self._lane.run(partial(predict, self._pin().content.ranker, rows))


def rows_route(batched: Batched) -> Route:
    """POST /score_rows. batched: `RowScorer.score` behind what makes one call of concurrent ones."""

    async def post(exchange: Exchange) -> Reply:
        request = await exchange.json(RowsRequest)
        budget_ms = ROWS_BUDGET_MS if request.deadline_ms is None else request.deadline_ms
        deadline = Deadline.after_ms(budget_ms)
        rows = np.array(request.rows, np.float32)  # null is NaN
        return json_reply(await _in_time(batched(rows), deadline, n=len(rows)))

    return Route(
        "POST",
        "/score_rows",
        post,
        "Scores of rows of features",
        "By the live snapshot's trees. Concurrent requests are scored together, each row as it would be alone.",
        takes=RowsRequest,
        gives=RowsReply,
        errors=(400, 408, 413, 415, 422, 503, 504),
        max_body_bytes=MAX_BODY_BYTES,
    )


async def _in_time(scoring: Awaitable[np.ndarray], deadline: Deadline, *, n: int) -> np.ndarray:
    """Raises DeadlineExceeded, DependencyUnavailable. BentoML's dispatcher says ServiceUnavailable in both cases."""
    timeout = asyncio.timeout(deadline.remaining_ms() / 1000)
    try:
        async with timeout:
            return await scoring
    except (TimeoutError, ServiceUnavailable) as error:
        if timeout.expired():
            raise DeadlineExceeded(
                f"{n:,} rows were not scored in time.", mend="Send fewer, or a longer deadline_ms."
            ) from error
        raise DependencyUnavailable(
            f"The service is busy: {n:,} rows would have waited for longer than {LATEST_MS / 1000:g} s.",
            mend="Send them again in a second.",
        ) from error
