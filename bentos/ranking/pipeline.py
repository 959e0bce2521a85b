"""pipeline: the feed's cascade: which stages, in which order, at which budget, and what happens when one fails."""

from __future__ import annotations

from concurrent.futures import Executor

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
    RankerScorer,
    RetrievalSource,
)
from infra.cascade.kinds import SideEffect
from infra.cascade.runner import FAIL, SKIP, USE_PREVIOUS, Cascade, Step
from infra.catalog.applications.ranking import RANKING


def ranking_steps(
    client: redis.asyncio.Redis, *, scoring_pool: Executor | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> list[Step[RankingQuery]]:
    """The steps as the service runs them."""
    return steps_with(UserReader(client, RANKING.name), scoring_pool=scoring_pool, watchers=watchers)


def steps_with(
    reader: Reader, *, scoring_pool: Executor | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> list[Step[RankingQuery]]:
    """Redis away: the popular list. Ranker away: retrieval order. Stages from memory run whatever the clock says."""
    return [
        Step(RetrievalSource(reader), on_failure=USE_PREVIOUS, budget_ms=80),
        Step(FreshSource(reader, scoring_pool), on_failure=USE_PREVIOUS, budget_ms=30),
        Step(TrendingSource(), on_failure=SKIP, budget_ms=None),
        Step(PopularSource(), on_failure=FAIL, budget_ms=None),
        Step(NewItemSource(), on_failure=SKIP, budget_ms=None),
        Step(ConsumedFilter(), on_failure=FAIL, budget_ms=None),
        Step(ExcludedFilter(), on_failure=FAIL, budget_ms=None),
        Step(FeatureHydrator(), on_failure=USE_PREVIOUS, budget_ms=40),
        Step(RankerScorer(scoring_pool), on_failure=USE_PREVIOUS, budget_ms=100),
        Step(OlderConsumedHydrator(reader), on_failure=USE_PREVIOUS, budget_ms=20),
        Step(BackfillSource(), on_failure=FAIL, budget_ms=None),
        Step(DiversitySelector(genre_share_fraction=0.5, creator_share_fraction=0.25), on_failure=FAIL, budget_ms=None),
        *(Step(watcher, on_failure=SKIP, budget_ms=None) for watcher in watchers),
    ]


def ranking_cascade(
    client: redis.asyncio.Redis, *, scoring_pool: Executor | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> Cascade[RankingQuery]:
    """The steps, checked."""
    return Cascade(ranking_steps(client, scoring_pool=scoring_pool, watchers=watchers))
