"""pipeline: the feed's cascade: which stages, in which order, at which budget, and what happens when one fails."""

from __future__ import annotations

import redis.asyncio

from bentos.ranking.boards import NewItemSource, TrendingSource
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import Reader, UserReader
from bentos.ranking.sources import FreshSource
from bentos.ranking.stages import (
    BackfillSource,
    ConsumedFilter,
    DiversitySelector,
    ExcludedFilter,
    FeatureHydrator,
    OlderConsumedHydrator,
    PopularSource,
    RetrievalSource,
    TopSelector,
)
from bentos.ranking.trees import RankerScorer
from infra.cascade.kinds import SideEffect
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, SKIP, USE_PREVIOUS, Head, Step
from infra.catalog.applications.ranking import RANKING


def ranking_steps(
    client: redis.asyncio.Redis, *, lane: Lane | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> list[Step[RankingQuery]]:
    """The steps as the service runs them."""
    return steps_with(UserReader(client, RANKING.name), lane=lane, watchers=watchers)


def steps_with(
    reader: Reader, *, lane: Lane | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> list[Step[RankingQuery]]:
    """Redis away: the popular list. Ranker away or out of time: retrieval order. Stages from memory run whatever the clock says."""
    return [
        Step(RetrievalSource(reader), on_failure=USE_PREVIOUS, budget_ms=80),
        Step(FreshSource(reader, lane), on_failure=USE_PREVIOUS, budget_ms=30),
        Step(TrendingSource(), on_failure=SKIP, budget_ms=None),
        Step(PopularSource(), on_failure=FAIL, budget_ms=None),
        Step(NewItemSource(), on_failure=SKIP, budget_ms=None),
        Step(ConsumedFilter(), on_failure=FAIL, budget_ms=None),
        Step(ExcludedFilter(), on_failure=FAIL, budget_ms=None),
        Step(FeatureHydrator(), on_failure=USE_PREVIOUS, budget_ms=40),
        Step(RankerScorer(lane), on_failure=USE_PREVIOUS, budget_ms=100, refines=True, head=Head(most=1000, least=200)),
        Step(OlderConsumedHydrator(reader), on_failure=USE_PREVIOUS, budget_ms=20),
        Step(BackfillSource(), on_failure=FAIL, budget_ms=None),
        Step(
            DiversitySelector(genre_share_fraction=0.5, creator_share_fraction=0.25),
            on_failure=USE_PREVIOUS,
            budget_ms=None,
        ),
        Step(TopSelector(), on_failure=FAIL, budget_ms=None),
        *(Step(watcher, on_failure=SKIP, budget_ms=None) for watcher in watchers),
    ]


def ranking_cascade(
    client: redis.asyncio.Redis, *, lane: Lane | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> Cascade[RankingQuery]:
    """The steps, checked."""
    return Cascade(ranking_steps(client, lane=lane, watchers=watchers))
