"""The runner: order, contracts, failure policies, deadline, and what it tells of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.cascade.batch import Batch, Column, Outcome
from infra.cascade.kinds import Filter, Found, Hydrator, Removal, Scorer, Selector, SideEffect, Source, Stage
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, SKIP, USE_PREVIOUS, OnFailure, Step
from infra.contracts.candidates import Float32s
from infra.contracts.errors import ContractViolation, DeadlineExceeded
from infra.resilience.deadline import Deadline

Query = dict[str, float]


def i32(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def f32(*values: float) -> Float32s:
    return np.array(values, np.float32)


class Finds(Source[Query]):
    def __init__(self, name: str, ids: NDArray[np.int32], scores: Float32s, **columns: Column) -> None:
        self.name = name
        self._found = Found(ids, scores, columns)

    async def find(self, query: Query, batch: Batch) -> Found:
        return self._found


class Hydrates(Hydrator[Query]):
    name = "hydrates"

    def __init__(self, make: Callable[[Batch], Mapping[str, Column]]) -> None:
        self._make = make

    async def hydrate(self, query: Query, batch: Batch) -> Mapping[str, Column]:
        return self._make(batch)


class Removes(Filter[Query]):
    name = "removes"

    def __init__(self, *rows: tuple[Sequence[float], str]) -> None:
        self._rows = rows

    async def remove(self, query: Query, batch: Batch) -> list[Removal]:
        return [Removal(np.array(rows), because) for rows, because in self._rows]


class Scores(Scorer[Query]):
    def __init__(self, scores: Float32s, *, name: str = "scores", takes_s: float = 0.0) -> None:
        self.name = name
        self._scores = scores
        self._takes_s = takes_s

    async def score(self, query: Query, batch: Batch) -> Float32s:
        await asyncio.sleep(self._takes_s)
        return self._scores


class Breaks(Scorer[Query]):
    name = "breaks"

    async def score(self, query: Query, batch: Batch) -> Float32s:
        raise RuntimeError("the model is away")


class Best(Selector[Query]):
    name = "best"

    def __init__(self, rows: NDArray[np.integer] | None = None) -> None:
        self._rows = rows

    async def select(self, query: Query, batch: Batch) -> NDArray[np.integer]:
        return np.argsort(-batch.scores, kind="stable") if self._rows is None else self._rows


class Notes(SideEffect[Query]):
    name = "notes"

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    async def act(self, query: Query, outcome: Outcome) -> None:
        self.seen.append(outcome)
        raise RuntimeError("the notebook is full")


THREE = Finds("first", i32(7, 8, 9), f32(3, 2, 1))


def wired(stage: object, *, on_failure: OnFailure = FAIL, budget_ms: float | None = None) -> Step[Query]:
    return Step(stage, on_failure=on_failure, budget_ms=budget_ms)  # type: ignore[arg-type]


def run(*steps: Step[Query], budget_ms: float = 1000) -> Outcome:
    return asyncio.run(Cascade(steps).run({}, Deadline.after_ms(budget_ms)))


def test_the_whole_way_from_two_sources_to_the_shown_list() -> None:
    notes = Notes()
    outcome = run(
        wired(Finds("first", i32(7, 8), f32(3, 2), price=f32(1, 2))),
        wired(Finds("second", i32(8, 9), f32(5, 1), price=f32(3, 4))),
        wired(Removes(([True, False, False], "sold out"))),
        wired(Hydrates(lambda batch: {"double": batch.columns["price"] * 2})),
        wired(Scores(f32(0.1, 0.9))),
        wired(Best()),
        wired(notes, on_failure=SKIP),
    )
    assert outcome.batch.ids.tolist() == [9, 8]
    assert outcome.batch.sources.tolist() == [1, 0]
    assert outcome.batch.columns["double"].tolist() == [8, 4]
    assert outcome.decided_by == "scores"
    assert not outcome.degraded
    assert list(outcome.stage_ms) == ["first", "second", "removes", "hydrates", "scores", "best", "notes"]
    assert [(r.ids.tolist(), r.by, r.because) for r in outcome.removed] == [([7], "removes", "sold out")]
    assert notes.seen[0].batch.ids.tolist() == [9, 8]
    assert outcome.skipped == {"notes": "RuntimeError: the notebook is full"}


def test_of_several_reasons_for_one_removal_the_first_counts() -> None:
    outcome = run(wired(THREE), wired(Removes(([True, False, False], "a"), ([True, True, False], "b"))))
    assert [(r.ids.tolist(), r.because) for r in outcome.removed] == [([7], "a"), ([8], "b")]


def test_without_a_scorer_the_source_of_the_first_candidate_has_decided() -> None:
    assert run(wired(THREE)).decided_by == "first"
    assert run(wired(Finds("first", i32(), f32()))).decided_by == "nothing"


def test_a_failed_scorer_leaves_the_scores_before_it_and_the_answer_is_degraded() -> None:
    outcome = run(wired(THREE), wired(Scores(f32(1, 3, 2))), wired(Breaks(), on_failure=USE_PREVIOUS), wired(Best()))
    assert outcome.batch.ids.tolist() == [8, 9, 7]
    assert (outcome.decided_by, outcome.degraded) == ("scores", True)
    assert outcome.skipped == {"breaks": "RuntimeError: the model is away"}


def test_skip_is_not_degraded_and_fail_fails() -> None:
    assert not run(wired(THREE), wired(Breaks(), on_failure=SKIP)).degraded
    with pytest.raises(RuntimeError, match="the model is away"):
        run(wired(THREE), wired(Breaks(), on_failure=FAIL))


def test_scores_that_are_not_finite_are_a_failure_of_the_stage() -> None:
    outcome = run(wired(THREE), wired(Scores(f32(1, np.nan, 2)), on_failure=USE_PREVIOUS))
    assert outcome.batch.scores.tolist() == [3, 2, 1]
    assert outcome.skipped == {"scores": "ArithmeticError: 1 of 3 scores are not finite"}


def test_a_stage_that_overruns_its_budget_is_left_behind() -> None:
    slow = Scores(f32(1, 2, 3), takes_s=5)
    outcome = run(wired(THREE), wired(slow, on_failure=USE_PREVIOUS, budget_ms=20), wired(Best()))
    assert outcome.degraded
    assert "took longer than its 20.0 ms" in outcome.skipped["scores"]
    assert outcome.stage_ms["scores"] < 1000


def test_the_deadline_cuts_a_budget_and_what_has_none_runs_on() -> None:
    slow = Scores(f32(1, 2, 3), takes_s=5)
    steps = [wired(THREE), wired(slow, on_failure=USE_PREVIOUS, budget_ms=900)]
    late = wired(Scores(f32(1, 2, 3), name="late"), on_failure=USE_PREVIOUS, budget_ms=10)
    outcome = run(*steps, late, wired(Best()), budget_ms=30)
    assert "could not start" in outcome.skipped["late"]
    assert outcome.batch.ids.tolist() == [7, 8, 9]
    with pytest.raises(DeadlineExceeded):
        run(*steps, wired(Scores(f32(1, 2, 3), name="late"), on_failure=FAIL, budget_ms=10), budget_ms=30)


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (Scores(f32(1, 2)), "scores gave scores with 2 rows for 3 candidates"),
        (Scores(np.array([1.0, 2.0, 3.0])), "wanted float32"),
        (Removes(([True], "short")), "removes gave rows with 1 rows for 3 candidates"),
        (Removes(([0.5, 0.1, 0.2], "scoring")), "wanted bool"),
        (Hydrates(lambda batch: {"price": f32(1)}), "column price with 1 rows for 3 candidates"),
        (Best(np.array([0, 0])), "selected rows twice"),
        (Best(np.array([3])), "selected rows twice or outside of the 3"),
    ],
)
def test_a_stage_that_breaks_its_kinds_promise_has_failed(stage: Stage[Query], told: str) -> None:
    name = stage.name
    outcome = run(wired(THREE), wired(stage, on_failure=USE_PREVIOUS, budget_ms=500))
    assert told in outcome.skipped[name]
    assert outcome.degraded
    assert outcome.batch.ids.tolist() == [7, 8, 9]
    with pytest.raises(ContractViolation, match=told):
        run(wired(THREE), wired(stage, on_failure=FAIL, budget_ms=500))


def test_a_stage_without_use_for_a_query_leaves_no_trace() -> None:
    class Never(Finds):
        def applies(self, query: Query) -> bool:
            return False

    outcome = run(wired(THREE), wired(Never("never", i32(1), f32(1))))
    assert "never" not in outcome.stage_ms | outcome.skipped


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([], "begins with a source"),
        ([wired(Best())], "begins with a source"),
        ([wired(THREE), wired(THREE)], "names repeat"),
        ([wired(THREE), wired(Best()), wired(Breaks())], "Selectors come after"),
        ([wired(THREE), wired(Notes()), wired(Best())], "side effects last"),
    ],
)
def test_a_cascade_is_checked_when_it_is_wired(steps: list[Step[Query]], told: str) -> None:
    with pytest.raises(ContractViolation, match=told):
        Cascade(steps)


def test_a_step_has_no_default_policy() -> None:
    with pytest.raises(TypeError, match="on_failure"):
        Step(THREE, budget_ms=1)  # type: ignore[call-arg]


def test_a_stage_that_fails_for_every_request_is_logged_once_a_second_with_how_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    cascade = Cascade([wired(THREE), wired(Breaks(), on_failure=SKIP)], clock=lambda: now[0])
    for at_s in (0.0, 0.2, 0.9, 1.1):
        now[0] = at_s
        asyncio.run(cascade.run({}, Deadline.after_ms(1000)))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "stage breaks failed, SKIP: RuntimeError: the model is away",
        "stage breaks failed, SKIP: RuntimeError: the model is away (and 2 more since the last line)",
    ]
