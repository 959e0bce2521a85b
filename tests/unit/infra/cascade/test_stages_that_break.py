"""Every kind of stage broken in every way, at its place in a cascade: an answer as if it were not there, or the error of FAIL."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from infra.cascade.batch import Batch, Outcome, Reason
from infra.cascade.costs import StageCost
from infra.cascade.kinds import Removal
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, SKIP, USE_PREVIOUS, OnFailure, Step
from infra.contracts.errors import ContractViolation, DeadlineExceeded, DependencyUnavailable
from infra.resilience.deadline import Deadline
from tests.unit.infra.cascade.breaking import (
    KINDS,
    WRONG,
    AFilter,
    AHydrator,
    AScorer,
    ASelector,
    ASource,
    Behaviour,
    Query,
    Spinning,
    found,
    gives,
    raises,
    sleeps,
)

BUDGET_MS = 100.0
POLICIES = (USE_PREVIOUS, SKIP, FAIL)


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane("test")
    yield lane
    lane.close()


def around(broken: Step[Query] | None) -> list[Step[Query]]:
    """A cascade of every kind that works, with that step behind the one of its kind; what is shown depends on each of them."""
    steps: list[Step[Query]] = [
        Step(ASource(gives(found(7, 8, 9, 10)), "source"), FAIL, None),
        Step(AHydrator(gives(lambda batch: {"double": batch.ids * 2}), "hydrator"), FAIL, None),
        Step(AFilter(gives(lambda batch: [Removal(batch.ids == 8, "sold out")]), "filter"), FAIL, None),
        Step(AScorer(gives(lambda batch: batch.ids.astype(np.float32)), "scorer"), FAIL, None),
        Step(ASelector(gives(lambda batch: np.argsort(-batch.scores, kind="stable")[:20]), "selector"), FAIL, None),
    ]
    kinds = list(KINDS)
    if broken is not None:
        at = next(n for n, kind in enumerate(kinds) if isinstance(broken.stage, type(KINDS[kind](raises))))
        steps.insert(min(at + 1, len(steps)), broken)
    return steps


def step_of(kind: str, behaviour: Behaviour, on_failure: OnFailure, budget_ms: float | None = BUDGET_MS) -> Step[Query]:
    return Step(KINDS[kind](behaviour), on_failure, budget_ms)


def answer(cascade: Cascade[Query], budget_ms: float = 60_000) -> Outcome:
    return asyncio.run(cascade.run({}, Deadline.after_ms(budget_ms)))


def check(outcome: Outcome, broken: Step[Query], reason: Reason) -> None:
    """As if the broken step were not there, and said so."""
    without = answer(Cascade(around(None)))
    assert outcome.batch.ids.tolist() == without.batch.ids.tolist() == [10, 9, 7]
    assert outcome.batch.scores.tobytes() == without.batch.scores.tobytes()
    assert outcome.batch.columns["double"].tolist() == [20, 18, 14]
    assert outcome.decided_by == "scorer"
    assert list(outcome.skipped) == list(outcome.reasons) == [broken.stage.name]
    assert outcome.reasons[broken.stage.name] is reason
    assert outcome.degraded is (broken.on_failure is USE_PREVIOUS)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("kind", "how", "made"), WRONG, ids=[f"{kind}, {how}" for kind, how, _ in WRONG])
def test_what_breaks_its_kinds_promise_is_as_if_it_were_not_there(
    kind: str, how: str, made: object, policy: OnFailure
) -> None:
    broken = step_of(kind, gives(made), policy)
    cascade = Cascade(around(broken))
    if policy is FAIL:
        with pytest.raises((ContractViolation, ArithmeticError, AttributeError, TypeError)):
            answer(cascade)
    else:
        check(answer(cascade), broken, Reason.FAILED)


@pytest.mark.parametrize("budget_ms", [BUDGET_MS, None])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_raises_is_as_if_it_were_not_there(kind: str, policy: OnFailure, budget_ms: float | None) -> None:
    broken = step_of(kind, raises, policy, budget_ms)
    cascade = Cascade(around(broken))
    if policy is FAIL:
        with pytest.raises(RuntimeError, match="the model is away"):
            answer(cascade)
    else:
        check(answer(cascade), broken, Reason.FAILED)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_sleeps_for_ever_is_left_behind(kind: str, policy: OnFailure) -> None:
    broken = step_of(kind, sleeps, policy, 5)
    cascade = Cascade(around(broken))
    if policy is FAIL:
        with pytest.raises(DeadlineExceeded, match=r"took longer than its 5\.0 ms"):
            answer(cascade)
    else:
        check(answer(cascade), broken, Reason.OVERRAN)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_spins_in_native_code_frees_the_request_and_only_one_of_them_runs_on(
    kind: str, policy: OnFailure, lane: Lane
) -> None:
    spinning = Spinning(lane)
    broken = step_of(kind, spinning, policy)
    cascade = Cascade(around(broken))

    async def once() -> Outcome | Exception:
        try:
            return await cascade.run({}, Deadline.after_ms(60_000))
        except (DeadlineExceeded, DependencyUnavailable) as error:
            return error

    await lane.run(lambda: None)  # the thread is there
    first = await once()
    assert spinning.began.is_set() and not spinning.ended.is_set(), "the answer came while the call still ran"
    cascade.costs[broken.stage.name] = StageCost()  # with what it has learnt it would not even be tried again
    second = await once()
    assert not spinning.ended.is_set()
    assert (lane.abandoned, lane.refused) == (1, 1)
    await spinning.until_ended()
    if policy is FAIL:
        assert isinstance(first, DeadlineExceeded) and isinstance(second, DependencyUnavailable)
        return
    assert isinstance(first, Outcome) and isinstance(second, Outcome)
    await asyncio.to_thread(check, first, broken, Reason.OVERRAN)
    await asyncio.to_thread(check, second, broken, Reason.BUSY)
    assert await lane.run(lambda: "next") == "next"


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_start_any_more_does_not(kind: str) -> None:
    broken = step_of(kind, sleeps, USE_PREVIOUS)
    outcome = answer(Cascade(around(broken)), budget_ms=-1)
    check(outcome, broken, Reason.NOT_STARTED)
    assert broken.stage.name not in outcome.stage_ms


def test_what_was_ready_when_its_time_ran_out_is_used() -> None:
    """A client may swallow the end that comes with its reply (gh-96764): what the stage learnt by then, the query knows."""

    async def ready(batch: Batch) -> object:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return batch.scores + 1

    outcome = answer(Cascade(around(step_of("scorer", ready, USE_PREVIOUS, 5))))
    assert (outcome.decided_by, outcome.degraded, outcome.skipped) == ("a scorer", False, {})


def test_what_blocks_the_event_loop_is_not_started_again() -> None:
    async def blocks(batch: Batch) -> object:
        time.sleep(0.05)
        return batch.scores + 1

    cascade = Cascade(around(step_of("scorer", blocks, USE_PREVIOUS, 10)))
    first, second = answer(cascade), answer(cascade)
    assert first.decided_by == "a scorer", "what it gave is there, so it is used"
    assert (second.decided_by, second.reasons) == ("scorer", {"a scorer": Reason.NOT_STARTED})


def test_what_always_overruns_is_started_ever_more_rarely() -> None:
    cascade = Cascade(around(step_of("hydrator", sleeps, USE_PREVIOUS, 5)))
    reasons = [answer(cascade).reasons["a hydrator"] for _ in range(40)]
    assert [at for at, reason in enumerate(reasons) if reason is Reason.OVERRAN] == [0, 2, 4, 7, 11, 16, 22, 29, 37]
    assert set(reasons) == {Reason.OVERRAN, Reason.NOT_STARTED}


@pytest.mark.parametrize("kind", KINDS)
def test_what_ends_in_time_is_started_each_time(kind: str) -> None:
    calls: list[str] = []

    async def counts(batch: Batch) -> object:
        calls.append(kind)
        raise KeyError("counted")

    cascade = Cascade([replace(step, budget_ms=60_000) for step in around(None)])
    assert [answer(cascade).skipped for _ in range(40)] == [{}] * 40
    failing = Cascade(around(step_of(kind, counts, USE_PREVIOUS)))
    for _ in range(40):
        answer(failing)
    assert len(calls) == 40, "what fails at once is not slow"


def test_a_deadline_that_all_stages_eat_up_still_gives_an_answer() -> None:
    eating = [Step(KINDS[kind](sleeps), USE_PREVIOUS, 10) for kind in KINDS]
    steps = around(None)
    wired = [eating[0], *steps[:1], *eating[1:4], *steps[1:5], eating[4], eating[5]]
    outcome = answer(Cascade(wired), budget_ms=25)
    assert outcome.batch.ids.tolist() == [10, 9, 7]
    assert set(outcome.reasons.values()) == {Reason.OVERRAN, Reason.NOT_STARTED}
    assert len(outcome.skipped) == len(eating)


def test_a_rule_that_cannot_say_whether_it_applies_or_settles_is_a_failure_of_its_step() -> None:
    class Unsure(AScorer):
        def applies(self, query: Query) -> bool:
            raise KeyError("user")

    unsure = Step(Unsure(gives(lambda batch: -batch.scores)), USE_PREVIOUS, None)
    check(answer(Cascade(around(unsure))), unsure, Reason.FAILED)

    def no_rule(query: Query, batch: object) -> bool:
        raise KeyError("margin")

    settles = Step(AScorer(gives(lambda batch: -batch.scores)), USE_PREVIOUS, None, settles=no_rule)
    check(answer(Cascade(around(settles))), settles, Reason.FAILED)


def test_a_stage_s_own_timeout_is_its_failure_and_not_its_budget_s() -> None:
    async def times_out(batch: object) -> object:
        raise TimeoutError("the socket")

    broken = step_of("hydrator", times_out, USE_PREVIOUS)
    outcome = answer(Cascade(around(broken)))
    check(outcome, broken, Reason.FAILED)
    assert outcome.skipped == {"a hydrator": "TimeoutError: the socket"}


def test_what_a_stage_waited_for_may_be_cancelled_without_ending_the_request() -> None:
    async def loses_it(batch: object) -> object:
        waited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(waited.cancel)
        await waited
        return None

    for budget_ms in (BUDGET_MS, None):
        broken = step_of("scorer", loses_it, USE_PREVIOUS, budget_ms)
        check(answer(Cascade(around(broken))), broken, Reason.FAILED)


async def test_a_request_whose_caller_has_gone_ends_at_once_and_nothing_of_it_goes_on(lane: Lane) -> None:
    acted: list[str] = []

    async def acts(batch: object) -> None:
        acted.append("acted")

    for behaviour in (sleeps, Spinning(lane)):
        broken = step_of("scorer", behaviour, USE_PREVIOUS, 60_000)
        request = asyncio.create_task(
            Cascade([*around(broken), step_of("side effect", acts, SKIP)]).run({}, Deadline.after_ms(60_000))
        )
        while isinstance(behaviour, Spinning) and not behaviour.began.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert not acted
        if isinstance(behaviour, Spinning):
            assert lane.abandoned == 1
            await behaviour.until_ended()
