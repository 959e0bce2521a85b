"""Steps that run together: they wait at the same time, see the same batch, and end together where one fails the request."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from infra.cascade.batch import Batch, Outcome, Reason
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, SKIP, USE_PREVIOUS, Step, Together
from infra.contracts.errors import ContractViolation, DeadlineExceeded
from infra.resilience.deadline import Deadline
from tests.unit.infra.cascade.breaking import (
    AHydrator,
    AScorer,
    ASource,
    Behaviour,
    Query,
    found,
    gives,
    raises,
    sleeps,
)


def run(*steps: Step[Query] | Together[Query]) -> Outcome:
    return asyncio.run(Cascade(steps).run({}, Deadline.after_ms(60_000)))


def hydrates(name: str, behaviour: Behaviour, **fields: Any) -> Step[Query]:
    return Step(AHydrator(behaviour, name), **{"on_failure": USE_PREVIOUS, "budget_ms": None, **fields})


FIRST = Step(ASource(gives(found(7, 8, 9))), FAIL, None)


def test_each_waits_for_the_other_and_all_see_the_batch_before_them() -> None:
    met = asyncio.Barrier(3)

    def meets(name: str) -> Behaviour:
        async def behave(batch: Batch) -> dict[str, np.ndarray]:
            assert not batch.columns
            await met.wait()
            return {name: batch.ids * 2}

        return behave

    outcome = run(FIRST, Together(*(hydrates(name, meets(name)) for name in "abc")))
    assert list(outcome.batch.columns) == ["a", "b", "c"]
    assert not outcome.skipped


def test_of_sources_together_the_earlier_keeps_what_both_bring_whichever_ends_first() -> None:
    async def late(batch: Batch) -> Any:
        for _ in range(5):
            await asyncio.sleep(0)
        return found(1, 2)

    sources = Together(
        Step(ASource(late, "late"), USE_PREVIOUS, None), Step(ASource(gives(found(2, 3)), "early"), USE_PREVIOUS, None)
    )
    outcome = run(sources)
    assert outcome.batch.ids.tolist() == [1, 2, 3]
    assert outcome.batch.sources.tolist() == [0, 0, 1]


def test_one_that_fails_takes_nothing_from_the_others() -> None:
    good = hydrates("good", gives(lambda batch: {"x": batch.ids}))
    late = hydrates("late", sleeps, budget_ms=5, on_failure=SKIP)
    outcome = run(FIRST, Together(hydrates("bad", raises), late, good))
    assert list(outcome.batch.columns) == ["x"]
    assert outcome.reasons == {"bad": Reason.FAILED, "late": Reason.OVERRAN}


@pytest.mark.parametrize("failing", [raises, sleeps])
def test_one_that_fails_the_request_ends_the_others_at_once(failing: Behaviour) -> None:
    ends: list[str] = []

    async def waits(batch: Batch) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("given up")

    fails = hydrates("fails", failing, on_failure=FAIL, budget_ms=20)
    with pytest.raises((RuntimeError, DeadlineExceeded)) as raised:
        run(FIRST, Together(hydrates("a", waits), fails, hydrates("b", waits, budget_ms=60_000)))
    assert not isinstance(raised.value, ExceptionGroup)
    assert ends == ["given up"] * 2


async def test_a_request_that_ends_takes_all_of_them_with_it() -> None:
    ends: list[str] = []
    begun = asyncio.Semaphore(0)

    async def waits(batch: Batch) -> None:
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("given up")

    both = Together(*(hydrates(name, waits, budget_ms=60_000) for name in "ab"))
    cascade = Cascade[Query]([FIRST, both])
    request = asyncio.create_task(cascade.run({}, Deadline.after_ms(60_000)))
    for _ in range(2):
        await begun.acquire()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert ends == ["given up"] * 2


def test_those_that_refine_are_left_out_together_once_the_request_is_settled() -> None:
    sure = Step(AScorer(gives(lambda batch: batch.scores)), FAIL, None, settles=lambda query, batch: True)
    refines = [hydrates(name, gives(lambda batch: {"x": batch.ids}), refines=name != "c") for name in "abc"]
    outcome = run(FIRST, sure, Together(*refines))
    assert outcome.reasons == {"a": Reason.SETTLED, "b": Reason.SETTLED}
    assert list(outcome.batch.columns) == ["x"]


def test_only_sources_or_hydrators_run_together() -> None:
    with pytest.raises(ContractViolation, match="Only sources, or hydrators"):
        Together(FIRST, hydrates("a", raises))
    with pytest.raises(ContractViolation, match="Only sources, or hydrators"):
        Together(Step(AScorer(raises), FAIL, None))
