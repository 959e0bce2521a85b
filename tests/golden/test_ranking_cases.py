"""Every stage, rule and filter that the feed wires decides a named case: taken out, the case's answer is another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.schema import RecommendRequest
from tests.fixtures.nearline import did, forget
from tests.golden.case import Case, breaking, each, steps_of, wired
from tests.golden.ranking_cases import CASES

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@asynccontextmanager
async def met(case: Case, client: redis.asyncio.Redis) -> AsyncIterator[None]:
    """What the case says has happened."""
    await did(client, case.user, *case.clicked)
    try:
        yield
    finally:
        await forget(client, case.user)


@by_name
async def test_the_case_holds(case: Case, snapshot: RankingSnapshot, client: redis.asyncio.Redis) -> None:
    async with met(case, client):
        assert case.wrong(await case.answered(snapshot, wired(client))) == ""


@by_name
async def test_it_no_longer_does_without_what_decides_it(
    case: Case, snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    async with met(case, client):
        try:
            asked = await case.answered(snapshot, case.without(wired(client)))
        except RuntimeError as error:
            assert "broken for this case" in str(error)  # what stood in for what is broken is gone
            return
    assert case.wrong(asked), f"{case.decides} decides nothing here"


async def test_every_wired_stage_decides_a_case(client: redis.asyncio.Redis) -> None:
    names = [step.stage.name for step in steps_of(wired(client))]
    undecided = set(names) - {case.decides for case in CASES}
    assert not undecided, (
        f"Nobody would notice if these broke: {sorted(undecided)}. Add their cases to ranking_cases.py."
    )
    assert {case.decides for case in CASES} <= set(names), "a case for what is no longer wired"
    assert len({case.name for case in CASES}) == len(CASES)


async def test_every_step_that_settles_decides_a_case(client: redis.asyncio.Redis) -> None:
    settling = {step.stage.name for step in steps_of(wired(client)) if step.settles is not None}
    assert settling == {case.settled_by for case in CASES} - {""}
    assert all(case.settled_by in ("", case.decides) for case in CASES)


def test_every_business_rule_decides_a_case() -> None:
    used = {rule for case in CASES for rule in _rules_of(case)}
    assert used == set(type(RecommendRequest(user_id="u1").rules).model_fields)


def _rules_of(case: Case) -> set[str]:
    return RecommendRequest.model_validate({"user_id": case.user, **case.asks}).rules.model_fields_set


async def test_a_stage_that_breaks_is_noticed_as_one_that_is_missing(
    snapshot: RankingSnapshot, client: redis.asyncio.Redis
) -> None:
    """Of each stage at least one case: those of which FAIL is the policy end in the error."""
    seen = set()
    for case in CASES:
        broken = each(
            wired(client),
            lambda step, name=case.decides: (  # type: ignore[misc]
                type(step)(breaking(step.stage), step.on_failure, None) if step.stage.name == name else step
            ),
        )
        async with met(case, client):
            try:
                asked = await case.answered(snapshot, broken)
                if case.wrong(asked):
                    seen.add(case.decides)
            except RuntimeError:
                seen.add(case.decides)
    assert seen == {case.decides for case in CASES}
