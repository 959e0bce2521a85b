"""Of any request: filters shorten no list while candidates remain, and what is shown was a candidate, each time to the bit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentos.ranking.changes import UNAVAILABLE
from bentos.ranking.content import RankingSnapshot
from bentos.ranking.pipeline import ranking_steps
from bentos.ranking.query import RankingQuery
from bentos.ranking.schema import RecommendRequest
from infra.cascade.batch import Outcome
from infra.cascade.kinds import Selector
from infra.cascade.runner import Cascade
from infra.contracts.decisions import Extent
from infra.nearline.boards import Board
from infra.resilience.deadline import Deadline
from infra.snapshots.connection import serving_client
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import GENRES, tiny_world

ITEMS = 300
CONSUMED = {f"u{at}": {int(item) for item in history} for at, history in enumerate(tiny_world().histories)}

items = st.integers(0, ITEMS - 1).map(lambda item: f"i{item}")
some_items = st.lists(items, max_size=40, unique=True)


@dataclass(frozen=True)
class Ask:
    user: str
    n: int
    session: list[str]
    exclude: list[str]
    deny: list[str]
    deny_creators: list[str]
    allow: list[str]
    boost: dict[str, float]
    boost_categories: dict[str, float]
    pins: list[str]
    trending: list[str]
    unavailable: list[str]
    rows: int
    parts: int | None

    def query(self, snapshot: RankingSnapshot) -> RankingQuery:
        """Of that moment."""
        rules = {
            "deny_categories": self.deny,
            "deny_creators": self.deny_creators,
            "allow_categories": self.allow,
            "boost_items": self.boost,
            "boost_categories": self.boost_categories,
            "pin": self.places,
        }
        said = {"n": self.n, "context": {"recent_items": self.session}, "exclude": self.exclude, "rules": rules}
        lists = {"trending_clicks": tuple((item, 900 - at) for at, item in enumerate(self.trending))}
        standing = {UNAVAILABLE: dict.fromkeys(self.unavailable, "yes")}
        board = Board(now_us=1, offsets=(1,) * 16, lists=lists, standing=standing)
        query = RankingQuery.of(RecommendRequest.model_validate({"user_id": self.user, **said}), snapshot, board=board)
        query.now_us = 1_700_000_000_000_000
        return query

    @property
    def places(self) -> dict[str, int]:
        """Of the pins, each third one from the second on."""
        return dict(zip(self.pins, range(2, self.n + 1, 3), strict=False))

    def allowed(self, snapshot: RankingSnapshot) -> set[int]:
        """All that may be shown."""
        table = snapshot.content.items
        gone = {int(item[1:]) for item in [*self.session, *self.exclude, *self.unavailable]}
        gone |= CONSUMED.get(self.user, set())
        return {
            item
            for item in range(ITEMS)
            if item not in gone
            and not set(self.deny) & set(table.genres[item])
            and (not self.allow or set(self.allow) & set(table.genres[item]))
            and table.creators[item] not in self.deny_creators
        }


asks = st.builds(
    Ask,
    user=st.sampled_from([*sorted(CONSUMED), "nobody", "somebody"]),
    n=st.integers(1, 330),
    session=some_items,
    exclude=some_items,
    deny=st.lists(st.sampled_from(GENRES), max_size=2, unique=True),
    deny_creators=st.lists(st.integers(0, 10).map(lambda at: f"studio {at}"), max_size=3, unique=True),
    allow=st.just([]) | st.lists(st.sampled_from(GENRES), max_size=3, unique=True),
    boost_categories=st.dictionaries(st.sampled_from(GENRES), st.floats(0.1, 10), max_size=3),
    pins=st.lists(items, max_size=5, unique=True),
    boost=st.dictionaries(items, st.floats(0.1, 10), max_size=5),
    trending=some_items,
    unavailable=some_items,
    rows=st.integers(1, 120),
    parts=st.sampled_from([None, 1]),
)


async def run(
    ask: Ask,
    snapshot: RankingSnapshot,
    stage: Stage,
    *,
    chosen: bool = True,
    extents: Mapping[str, Extent] | None = None,
) -> Outcome:
    """chosen: False leaves out what selects."""
    client = serving_client(stage.redis_url, timeout_s=5.0)
    steps = [replace(step, budget_ms=None) for step in ranking_steps(client, lane=None)]
    steps = [step for step in steps if chosen or not isinstance(step.stage, Selector)]
    try:
        return await Cascade(steps).run(ask.query(snapshot), Deadline.after_ms(600_000), extents=extents)
    finally:
        await client.aclose()


examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@examples
@given(asks)
def test_a_list_is_as_long_as_was_asked_for_while_there_is_anything_to_show(
    snapshot: RankingSnapshot, stage: Stage, ask: Ask
) -> None:
    outcome = asyncio.run(run(ask, snapshot, stage))
    shown, allowed = outcome.batch.ids.tolist(), ask.allowed(snapshot)
    assert len(set(shown)) == len(shown) == min(ask.n, len(allowed))
    assert set(shown) <= allowed
    assert outcome.skipped == {}


@examples
@given(asks)
def test_what_is_shown_was_a_candidate_with_the_score_it_had(snapshot: RankingSnapshot, stage: Stage, ask: Ask) -> None:
    shown = asyncio.run(run(ask, snapshot, stage)).batch
    candidates = asyncio.run(run(ask, snapshot, stage, chosen=False)).batch
    scores = dict(zip(candidates.ids.tolist(), candidates.scores.tolist(), strict=True))
    assert [scores[item] for item in shown.ids.tolist()] == shown.scores.tolist()
    is_pinned = np.isin(shown.ids, [int(item[1:]) for item in ask.places])
    assert not (np.diff(shown.scores[~is_pinned]) > 0).any(), "best first"


@examples
@given(asks)
def test_what_is_pinned_and_may_be_shown_stands_at_its_place(snapshot: RankingSnapshot, stage: Stage, ask: Ask) -> None:
    shown, allowed = asyncio.run(run(ask, snapshot, stage)).batch.ids.tolist(), ask.allowed(snapshot)
    for item, place in ask.places.items():
        index = int(item[1:])
        assert (index in shown) == (index in allowed), item
        if index in allowed and place <= len(shown) and len(shown) == ask.n:
            assert shown.index(index) == place - 1


@examples
@given(asks)
def test_the_same_request_is_answered_the_same_to_the_bit_however_far_its_scorers_came(
    snapshot: RankingSnapshot, stage: Stage, ask: Ask
) -> None:
    extents = {"ranker": Extent(ask.rows, ask.parts)}
    for given_extents in (None, extents):
        one, other = (asyncio.run(run(ask, snapshot, stage, extents=given_extents)) for _ in range(2))
        assert one.batch.ids.tobytes() == other.batch.ids.tobytes()
        assert one.batch.scores.tobytes() == other.batch.scores.tobytes()
        assert one.batch.sources.tobytes() == other.batch.sources.tobytes()
        assert (one.extents, one.skipped, one.decided_by) == (other.extents, other.skipped, other.decided_by)
