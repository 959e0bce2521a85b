"""pipeline: the feed's cascade: which stages, in which order, at which budget, and what happens when one fails."""

from __future__ import annotations

import redis.asyncio

from bentos.ranking.availability import AvailableFilter
from bentos.ranking.boards import NewItemSource, TrendingSource
from bentos.ranking.features import FeatureHydrator, MatchHydrator
from bentos.ranking.light import LightScorer, is_sure
from bentos.ranking.network import NetworkScorer
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import Reader, UserReader
from bentos.ranking.rules import BoostScorer, PinnedSource, PinsSelector, RulesFilter
from bentos.ranking.sources import FreshSource
from bentos.ranking.stages import (
    BackfillSource,
    ConsumedFilter,
    DiversitySelector,
    ExcludedFilter,
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
from infra.catalog.features.ranking import NETWORK_HEAD, RANKER_HEAD

_TREES = Head(most=RANKER_HEAD, least=200)
_NETWORK = Head(most=NETWORK_HEAD, least=50)


def ranking_steps(
    client: redis.asyncio.Redis, *, lane: Lane | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> list[Step[RankingQuery]]:
    """The steps as the service runs them."""
    return steps_with(UserReader(client, RANKING.name), lane=lane, watchers=watchers)


def steps_with(
    reader: Reader, *, lane: Lane | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> list[Step[RankingQuery]]:
    """Redis away: the popular list. Ranker away or out of time: retrieval order.

    Without a budget is only what an answer cannot be without, and what takes some 0.01 ms: sources in memory, filters, the first n.
    """
    return [
        Step(RetrievalSource(reader), on_failure=USE_PREVIOUS, budget_ms=80),
        Step(FreshSource(reader, lane), on_failure=USE_PREVIOUS, budget_ms=30),
        Step(TrendingSource(), on_failure=SKIP, budget_ms=None),
        Step(PopularSource(), on_failure=FAIL, budget_ms=None),
        Step(NewItemSource(), on_failure=SKIP, budget_ms=None),
        Step(PinnedSource(reader), on_failure=USE_PREVIOUS, budget_ms=20),
        Step(ConsumedFilter(), on_failure=FAIL, budget_ms=None),
        Step(ExcludedFilter(), on_failure=FAIL, budget_ms=None),
        Step(AvailableFilter(), on_failure=FAIL, budget_ms=None),
        Step(RulesFilter(), on_failure=FAIL, budget_ms=None),
        Step(MatchHydrator(), on_failure=USE_PREVIOUS, budget_ms=20),
        Step(LightScorer(), on_failure=USE_PREVIOUS, budget_ms=10, settles=is_sure),
        Step(FeatureHydrator(), on_failure=USE_PREVIOUS, budget_ms=40),
        Step(RankerScorer(lane), on_failure=USE_PREVIOUS, budget_ms=100, refines=True, head=_TREES),
        Step(NetworkScorer(lane), on_failure=USE_PREVIOUS, budget_ms=30, refines=True, head=_NETWORK),
        Step(BoostScorer(), on_failure=USE_PREVIOUS, budget_ms=20),
        Step(OlderConsumedHydrator(reader), on_failure=USE_PREVIOUS, budget_ms=20),
        Step(BackfillSource(), on_failure=FAIL, budget_ms=None),
        Step(
            PinsSelector(DiversitySelector(genre_share_fraction=0.5, creator_share_fraction=0.25)),
            on_failure=USE_PREVIOUS,
            budget_ms=20,
        ),
        Step(PinsSelector(TopSelector()), on_failure=FAIL, budget_ms=None),
        *(Step(watcher, on_failure=SKIP, budget_ms=None) for watcher in watchers),
    ]


def ranking_cascade(
    client: redis.asyncio.Redis, *, lane: Lane | None, watchers: tuple[SideEffect[RankingQuery], ...] = ()
) -> Cascade[RankingQuery]:
    """The steps, checked."""
    return Cascade(ranking_steps(client, lane=lane, watchers=watchers))
