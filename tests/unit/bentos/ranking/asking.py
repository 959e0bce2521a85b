"""asking: one request through the whole cascade as it is wired, with all the time that it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import redis.asyncio

from bentos.ranking.content import RankingSnapshot, load_content
from bentos.ranking.pipeline import ranking_steps
from bentos.ranking.query import RankingQuery
from bentos.ranking.recommender import Reasons
from bentos.ranking.schema import RecommendRequest
from infra.cascade.batch import Outcome
from infra.cascade.runner import Cascade
from infra.nearline.boards import Board, BoardReader
from infra.resilience.deadline import Deadline
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from tests.fixtures.service import Stage


@dataclass(frozen=True)
class Asked:
    """What came of a request."""

    query: RankingQuery
    outcome: Outcome
    names: tuple[str, ...]

    @property
    def items(self) -> list[str]:
        item_ids = self.query.snapshot.content.items.item_ids
        return [item_ids[index] for index in self.outcome.batch.ids.tolist()]

    @property
    def sources(self) -> dict[str, str]:
        """By item id, in the order shown."""
        sources = [self.names[number] for number in self.outcome.batch.sources.tolist()]
        return dict(zip(self.items, sources, strict=True))

    def of(self, source: str) -> list[str]:
        """The items that it brought, in the order shown."""
        return [item for item, name in self.sources.items() if name == source]

    def reason(self, item: str) -> str:
        index = self.outcome.batch.ids.tolist()[self.items.index(item)]
        return Reasons(self.query).of(index, source=self.sources[item])


async def ask(
    snapshot: RankingSnapshot,
    client: redis.asyncio.Redis,
    user_id: str,
    *,
    board: Board | None = None,
    **fields: object,
) -> Asked:
    """Fields as of a RecommendRequest. board: as of a request that is replayed."""
    steps = [replace(step, budget_ms=None) for step in ranking_steps(client, lane=None)]
    cascade = Cascade(steps)
    query = RankingQuery.of(RecommendRequest.model_validate({"user_id": user_id, **fields}), snapshot, board=board)
    outcome = await cascade.run(query, Deadline.after_ms(60_000))
    return Asked(query, outcome, cascade.source_names)


def pinned(stage: Stage, reader: BoardReader | None = None) -> RankingSnapshot:
    """The live snapshot, with that reader's boards."""
    alias = stage.promotion.alias.read()
    assert alias is not None
    load = load_content if reader is None else partial(load_content, boards=lambda: reader.current)
    live = LiveSnapshots(serving_client(stage.redis_url, timeout_s=2.0), stage.promotion.store, load)
    return live.read(alias)
