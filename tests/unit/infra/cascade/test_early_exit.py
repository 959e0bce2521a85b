"""Early exit: a scorer that is sure settles the request, and what would refine it is left out without being missed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.cascade.batch import Batch, Outcome, Reason
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, USE_PREVIOUS, Step
from infra.contracts.errors import ContractViolation
from infra.resilience.deadline import Deadline
from tests.unit.infra.cascade.breaking import AHydrator, AScorer, ASelector, ASource, Query, found, gives, raises

FIRST = Step(ASource(gives(found(7, 8, 9))), FAIL, None)
LIGHT = AScorer(gives(lambda batch: batch.ids.astype(np.float32)), "light")
HEAVY = AScorer(gives(lambda batch: -batch.ids.astype(np.float32)), "heavy")
TOP = Step(ASelector(gives(lambda batch: np.argsort(-batch.scores, kind="stable"))), FAIL, None)


def margin_of(query: Query, batch: Batch) -> bool:
    """Whether the best is ahead by what the query wants."""
    best = np.sort(batch.scores)[::-1]
    return bool(best[0] - best[1] >= query["margin"])


def ask(margin: float, *, light: Step[Query] | None = None) -> Outcome:
    light = light or Step(LIGHT, USE_PREVIOUS, None, settles=margin_of)
    wired = [
        FIRST,
        light,
        Step(AHydrator(gives(lambda batch: {"x": batch.ids}), "features"), USE_PREVIOUS, None, refines=True),
        Step(HEAVY, USE_PREVIOUS, None, refines=True),
        TOP,
    ]
    return asyncio.run(Cascade(wired).run({"margin": margin}, Deadline.after_ms(60_000)))


def test_a_scorer_that_is_sure_ends_the_scoring_and_the_answer_is_not_degraded() -> None:
    outcome = ask(1.0)
    assert (outcome.decided_by, outcome.settled_by, outcome.degraded) == ("light", "light", False)
    assert outcome.batch.ids.tolist() == [9, 8, 7]
    assert outcome.skipped == {"features": "settled by light", "heavy": "settled by light"}
    assert set(outcome.reasons.values()) == {Reason.SETTLED}
    assert not {"features", "heavy"} & outcome.stage_ms.keys()


def test_one_that_is_not_sure_is_refined() -> None:
    outcome = ask(1.5)
    assert (outcome.decided_by, outcome.settled_by, outcome.skipped) == ("heavy", "", {})
    assert outcome.batch.ids.tolist() == [7, 8, 9]


def test_one_that_failed_settles_nothing() -> None:
    outcome = ask(0.0, light=Step(AScorer(raises, "light"), USE_PREVIOUS, None, settles=lambda query, batch: True))
    assert (outcome.decided_by, outcome.settled_by) == ("heavy", "")


def test_an_empty_batch_settles_nothing() -> None:
    first = Step(ASource(gives(found())), FAIL, None)
    sure = Step(LIGHT, FAIL, None, settles=lambda query, batch: True)
    outcome = asyncio.run(Cascade([first, sure]).run({}, Deadline.after_ms(1000)))
    assert (outcome.decided_by, outcome.settled_by) == ("nothing", "")


def test_only_a_scorer_settles() -> None:
    with pytest.raises(ContractViolation, match="Only a scorer"):
        replace(FIRST, settles=lambda query, batch: True)


@given(st.floats(0, 3))
def test_the_answer_is_that_of_the_scorer_that_settled_or_of_the_last(margin: float) -> None:
    outcome = ask(margin)
    assert (outcome.settled_by == "light") is (margin <= 1)
    assert outcome.batch.ids.tolist() == ([9, 8, 7] if margin <= 1 else [7, 8, 9])
