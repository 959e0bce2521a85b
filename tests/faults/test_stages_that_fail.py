"""The feed's own stages broken one at a time and all at once: the list is what it is without the stage, or the request fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import copy
from dataclasses import replace

import pytest
import pytest_asyncio
import redis.asyncio

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.query import RankingQuery
from infra.cascade.batch import Reason
from infra.cascade.kinds import Filter, Hydrator, Scorer, Selector, Source, Stage
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, USE_PREVIOUS, Step
from infra.contracts.errors import ContractViolation, DeadlineExceeded
from infra.resilience.deadline import Deadline
from tests.golden.case import Case, Steps, each, steps_of, wired
from tests.golden.conftest import client, snapshot, stage
from tests.unit.bentos.ranking.asking import Asked
from tests.unit.infra.cascade.breaking import WRONG, Behaviour, Spinning, gives, raises, sleeps

__all__ = ["client", "snapshot", "stage"]

FAILURES = (RuntimeError, ContractViolation, ArithmeticError, AttributeError, TypeError, DeadlineExceeded)
KINDS: dict[str, type] = {
    "source": Source,
    "hydrator": Hydrator,
    "filter": Filter,
    "scorer": Scorer,
    "selector": Selector,
}
METHODS = {
    "source": ("find",),
    "hydrator": ("hydrate",),
    "filter": ("remove",),
    "scorer": ("score", "score_by", "score_parts"),
    "selector": ("select",),
}

EVERYTHING = Case(
    name="a request that every stage has something to do for",
    decides="",
    user="u7",
    asks={
        "n": 60,
        "exclude": ["i107"],
        "context": {"recent_items": ["i17", "i187"]},
        "rules": {"pin": {"i250": 2}, "deny_categories": ["Music"], "boost_items": {"i155": 3.0}},
    },
    trending=("i24", "i12", "i6"),
    new=("n1", "n2"),
    unavailable=("i110",),
)


BESIDES = {
    "popular": replace(EVERYTHING, user="nobody"),
    "older_consumed": replace(EVERYTHING, asks={**EVERYTHING.asks, "n": 290}),
}
"""For stages that a known user's short list has no use for."""


@pytest_asyncio.fixture
async def lane() -> AsyncIterator[Lane]:
    lane = Lane("test")
    await lane.run(lambda: None)
    yield lane
    lane.close()


def kind_of(stage: Stage[RankingQuery]) -> str:
    return next(kind for kind, wanted in KINDS.items() if isinstance(stage, wanted))


def behaving(stage: Stage[RankingQuery], behaviour: Behaviour) -> Stage[RankingQuery]:
    """The stage in its place, doing that."""
    changed = copy(stage)

    async def behave(query: RankingQuery, batch: object, *_: object, **__: object) -> object:
        return await behaviour(batch)  # type: ignore[arg-type]

    for method in METHODS[kind_of(stage)]:
        setattr(changed, method, behave)
    return changed


def with_one(steps: Steps, name: str, behaviour: Behaviour, *, budget_ms: float) -> Steps:
    """The others take the time they need. budget_ms: of a step that is wired without one."""

    def change(step: Step[RankingQuery]) -> Step[RankingQuery]:
        if step.stage.name != name:
            return replace(step, budget_ms=None)
        its_own = budget_ms if step.budget_ms is None else step.budget_ms
        return replace(step, stage=behaving(step.stage, behaviour), budget_ms=its_own)

    return each(steps, change)


def without_one(steps: Steps, name: str) -> Steps:
    """The others take the time they need."""
    return each(steps, lambda step: None if step.stage.name == name else replace(step, budget_ms=None))


async def answered(steps: Steps, snapshot: RankingSnapshot, *, case: Case = EVERYTHING, ms: float = 600_000) -> Asked:
    deadline = Deadline.after_ms(ms)
    query, cascade = case.query(snapshot), Cascade(steps)
    query.deadline = deadline
    return Asked(query, await cascade.run(query, deadline), cascade.source_names)


def same(one: Asked, other: Asked) -> bool:
    """To the bit, and from where."""
    return one.sources == other.sources and one.outcome.batch.scores.tobytes() == other.outcome.batch.scores.tobytes()


async def check_each(
    client: redis.asyncio.Redis,
    snapshot: RankingSnapshot,
    behaviours: Callable[[str], list[Behaviour]],
    *,
    budget_ms: float,
    reason: Reason,
) -> None:
    """Every stage with every behaviour of its kind."""
    steps = wired(client)
    for step in steps_of(steps):
        name = step.stage.name
        case = BESIDES.get(name, EVERYTHING)
        without = await answered(without_one(steps, name), snapshot, case=case) if step.on_failure is not FAIL else None
        for behaviour in behaviours(kind_of(step.stage)):
            broken = with_one(steps, name, behaviour, budget_ms=budget_ms)
            if without is None:
                with pytest.raises(FAILURES):
                    await answered(broken, snapshot, case=case)
                continue
            asked = await answered(broken, snapshot, case=case)
            assert asked.outcome.reasons.get(name) is reason, (name, asked.outcome.skipped)
            assert asked.outcome.degraded or step.on_failure is not USE_PREVIOUS
            assert same(asked, without), name
            if case is EVERYTHING:
                assert len(asked.items) == 60, name


async def test_every_stage_runs_for_the_request(snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> None:
    steps = each(wired(client), lambda step: replace(step, budget_ms=None))
    asked = await answered(steps, snapshot)
    assert (len(asked.items), asked.outcome.skipped) == (60, {})
    idle = {step.stage.name for step in steps_of(steps)} - asked.outcome.stage_ms.keys()
    assert idle <= BESIDES.keys()
    for name, case in BESIDES.items():
        assert name in (await answered(steps, snapshot, case=case)).outcome.stage_ms


async def test_what_raises(snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> None:
    await check_each(client, snapshot, lambda kind: [raises], budget_ms=60_000, reason=Reason.FAILED)


async def test_what_breaks_its_kinds_promise(snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> None:
    def wrong(kind: str) -> list[Behaviour]:
        return [gives(made) for of, _, made in WRONG if of == kind]

    await check_each(client, snapshot, wrong, budget_ms=60_000, reason=Reason.FAILED)


async def test_what_sleeps_for_ever(snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> None:
    await check_each(client, snapshot, lambda kind: [sleeps], budget_ms=5, reason=Reason.OVERRAN)


async def test_what_spins_in_native_code(snapshot: RankingSnapshot, client: redis.asyncio.Redis, lane: Lane) -> None:
    """The feed is without the stage while it spins, and the others that use the lane fall back: none waits for it."""
    for step in steps_of(wired(client)):
        spinning = Spinning(lane)
        steps = with_one(wired(client), step.stage.name, spinning, budget_ms=60)
        before = lane.abandoned
        try:
            asked = await answered(steps, snapshot)
            assert len(asked.items) <= 60
        except DeadlineExceeded:
            pass
        if spinning.began.is_set():
            assert not spinning.ended.is_set(), "the answer came while it still ran"
            assert lane.abandoned == before + 1
        await spinning.until_ended()
    assert lane.refused == 0


async def test_everything_that_may_be_late_is_late_at_once(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    def late(step: Step[RankingQuery]) -> Step[RankingQuery]:
        return step if step.budget_ms is None else replace(step, stage=behaving(step.stage, sleeps))

    steps = each(wired(client), late)
    hanging = {step.stage.name for step in steps_of(steps) if step.budget_ms is not None}
    async with asyncio.timeout(60):
        asked = await answered(steps, snapshot, ms=50)
    assert len(asked.items) == 60
    assert (asked.outcome.degraded, "ranker" in hanging) == (True, True)
    told = {name: reason for name, reason in asked.outcome.reasons.items() if name in hanging}
    assert told and set(told.values()) <= {Reason.OVERRAN, Reason.NOT_STARTED}
