"""decisions: from an answer and its query to the entry of the decision log."""

from __future__ import annotations

import numpy as np

from bentos.ranking.query import RankingQuery
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.stages import FEATURES
from infra.cascade.batch import Outcome
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.decisions import Basis, Decision, digest_of, rows_that_fit
from infra.contracts.exposures import Exposure

BATCH = 50
"""Answers a write: they are some 3 kB each, and are made into bytes in the event loop, in about 1 ms."""

_MOST_CHARACTERS = 8 * 1024
"""Of the item ids that a request names and the log keeps."""

_MOST_ITEMS = rows_that_fit(len(RANKER_FEATURES))


def decision_of(query: RankingQuery, outcome: Outcome, request: RecommendRequest, *, shown: Exposure) -> Decision:
    """That answer, with all that a replay needs; what is longer than the log takes is cut, its digest is of all."""
    batch = outcome.batch
    features = batch.columns.get(FEATURES, np.empty((0, len(RANKER_FEATURES)), np.float32))[:_MOST_ITEMS]
    return Decision(
        request_id=shown.request_id,
        user_id=shown.user_id,
        request=_asked(request),
        generation=shown.generation,
        version=shown.version,
        arm=shown.arm,
        basis=_basis(query),
        nearline=query.nearline,
        items=shown.items[:_MOST_ITEMS],
        scores=batch.scores[:_MOST_ITEMS],
        list_digest=digest_of(shown.items, batch.scores),
        columns=RANKER_FEATURES,
        features=features.astype(np.float32, copy=False),
        decided_by=outcome.decided_by,
        degraded=outcome.degraded,
        stage_ms={
            **{name: round(taken, 3) for name, taken in outcome.stage_ms.items()},
            "total": round(shown.total_ms, 3),
        },
        skipped=outcome.skipped,
        extents=outcome.extents,
    )


def _asked(request: RecommendRequest) -> dict[str, object]:
    """What was asked; of a request that names very many items only how many: such an answer cannot be made again."""
    recent, exclude = request.context.recent_items, request.exclude
    rules = request.rules.model_dump(exclude_defaults=True)
    said: dict[str, object] = {"n": request.n, "deadline_ms": request.deadline_ms}
    named = [*recent, *exclude, *(name for rule in rules.values() for name in rule)]
    if sum(map(len, named)) > _MOST_CHARACTERS:
        return said | {"items_named": len(named)}
    said |= {"recent_items": recent, "exclude": exclude}
    said |= request.context.model_dump(include={"hour", "device"}, exclude_none=True)
    return said | {"rules": rules} if rules else said


def _basis(query: RankingQuery) -> Basis:
    seen, board = query.seen, query.board.source
    if seen is None:
        return Basis(query.now_us, None, (), True, board.now_us, board.offsets)
    uncounted = () if seen.is_whole else tuple(record.event_id for record in seen.pending_records)
    return Basis(query.now_us, seen.offset, seen.pending, seen.is_whole, board.now_us, board.offsets, uncounted)
