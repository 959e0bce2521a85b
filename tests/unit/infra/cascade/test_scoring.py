"""Heads and parts: the rows behind a head keep their order, the first parts are a sum, and an interrupted run is made again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.cascade.batch import Batch, Outcome, Reason
from infra.cascade.costs import StageCost
from infra.cascade.kinds import AnytimeScorer, Found, Partial
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, SKIP, USE_PREVIOUS, Head, OnFailure, Step
from infra.contracts.candidates import Float32s
from infra.contracts.decisions import Extent
from infra.contracts.errors import ContractViolation
from infra.resilience.deadline import Deadline
from tests.unit.infra.cascade.breaking import AScorer, ASelector, ASource, Query, gives

finite = st.floats(-(2.0**100), 2.0**100, width=32)
score_lists = st.lists(finite, min_size=1, max_size=60)


class Trees(AnytimeScorer[Query]):
    """Parts that are summed in float32, each drawn from the candidates' ids; takes a ms of its clock for each."""

    name = "trees"

    def __init__(self, parts: int, now_s: list[float]) -> None:
        self._parts, self._now_s = parts, now_s
        self.whole = 0

    def parts(self, query: Query) -> int:
        return self._parts

    def part(self, batch: Batch, number: int) -> Float32s:
        rng = np.random.default_rng(number)
        return rng.normal(size=1000).astype(np.float32)[batch.ids % 1000]

    async def score(self, query: Query, batch: Batch) -> Float32s:
        self.whole += 1
        self._now_s[0] += self._parts / 1000
        return self.summed(batch, self._parts)

    async def score_parts(self, query: Query, batch: Batch, deadline: Deadline, *, most: int) -> Partial:
        done = 0
        while done < most and deadline.remaining_ms() >= 1:
            done += 1
            self._now_s[0] += 0.001
        return Partial(self.summed(batch, done), done, float(done))

    def summed(self, batch: Batch, parts: int) -> Float32s:
        total = np.zeros(len(batch), np.float32)
        for number in range(parts):
            total += self.part(batch, number)
        return total


def source_of(scores: Sequence[float]) -> Step[Query]:
    ids = np.arange(len(scores), dtype=np.int32) + 100
    return Step(ASource(gives(Found(ids, np.array(scores, np.float32)))), FAIL, None)


TOP = Step(ASelector(gives(lambda batch: np.argsort(-batch.scores, kind="stable"))), FAIL, None)


@given(score_lists, st.data())
def test_rows_behind_the_head_keep_their_order_below_it(scores: list[float], data: st.DataObject) -> None:
    most = data.draw(st.integers(1, len(scores)))
    given_scores = np.array(data.draw(st.lists(finite, min_size=most, max_size=most)), np.float32)
    scorer = Step(AScorer(gives(given_scores)), FAIL, None, head=Head(most=most, least=1))
    outcome = asyncio.run(Cascade([source_of(scores), scorer, TOP]).run({}, Deadline.after_ms(60_000)))
    before = (np.argsort(-np.array(scores, np.float32), kind="stable") + 100).tolist()
    assert sorted(outcome.batch.ids.tolist()) == sorted(before), "none is lost"
    assert set(outcome.batch.ids[:most].tolist()) == set(before[:most]), "the best by the scores before it are its head"
    assert outcome.batch.ids[most:].tolist() == before[most:]
    assert np.isfinite(outcome.batch.scores).all()


def test_a_head_sees_its_rows_best_first_and_all_of_their_columns() -> None:
    seen: list[Batch] = []

    def scored(batch: Batch) -> Float32s:
        seen.append(batch)
        return batch.scores

    found = Found(np.array([1, 2, 3], np.int32), np.array([1, 3, 2], np.float32), {"price": np.array([10, 20, 30])})
    head = Step(AScorer(gives(scored)), FAIL, None, head=Head(most=2, least=1))
    asyncio.run(Cascade([Step(ASource(gives(found)), FAIL, None), head]).run({}, Deadline.after_ms(1000)))
    assert [(one.ids.tolist(), one.columns["price"].tolist()) for one in seen] == [([2, 3], [20, 30])]


def interrupted(
    scores: list[float], *, parts: int, ms: float, head: Head | None, policy: OnFailure = USE_PREVIOUS
) -> tuple[Outcome, Trees]:
    """A run of which the clock moves with the parts alone."""
    now_s = [0.0]
    trees = Trees(parts, now_s)
    cascade = Cascade([source_of(scores), Step(trees, policy, ms, head=head), TOP], clock=lambda: now_s[0])
    return asyncio.run(cascade.run({}, Deadline.after_ms(60_000, clock=lambda: now_s[0]))), trees


@given(score_lists, st.integers(1, 30), st.integers(1, 40), st.data())
def test_the_first_parts_are_the_sum_of_just_those_and_are_made_again_from_their_number_to_the_bit(
    scores: list[float], parts: int, ms: int, data: st.DataObject
) -> None:
    most = data.draw(st.integers(1, len(scores)))
    head = data.draw(st.sampled_from([None, Head(most=most, least=1)]))
    outcome, trees = interrupted(scores, parts=parts, ms=ms * 1.0001, head=head)
    done = min(parts, ms)
    assert outcome.extents == {"trees": Extent(len(scores) if head is None else most, done)}
    assert outcome.degraded is (done < parts)
    assert (outcome.reasons == {"trees": Reason.PARTLY}) is (done < parts)
    assert outcome.decided_by == "trees"
    best = outcome.batch.take(np.arange(len(scores) if head is None else most))
    assert best.scores.tobytes() == trees.summed(best, done).tobytes()

    unhurried = [source_of(scores), Step(Trees(parts, [0.0]), USE_PREVIOUS, None, head=head), TOP]
    again = asyncio.run(Cascade(unhurried).run({}, Deadline.after_ms(3_600_000), extents=outcome.extents))
    assert again.batch.ids.tolist() == outcome.batch.ids.tolist()
    assert again.batch.scores.tobytes() == outcome.batch.scores.tobytes()
    assert (again.skipped, again.extents, again.degraded) == (outcome.skipped, outcome.extents, outcome.degraded)


def test_where_time_is_ample_and_known_to_be_all_parts_are_one_call() -> None:
    now_s = [0.0]
    trees = Trees(10, now_s)
    cascade = Cascade([source_of([3, 2, 1]), Step(trees, USE_PREVIOUS, 100)], clock=lambda: now_s[0])
    for run in range(3):
        outcome = asyncio.run(cascade.run({}, Deadline.after_ms(60_000, clock=lambda: now_s[0])))
        assert trees.whole == run, "the first time nobody knows"
        assert not outcome.skipped
    tight = asyncio.run(cascade.run({}, Deadline.after_ms(15, clock=lambda: now_s[0])))
    assert trees.whole == 2
    assert tight.extents == {"trees": Extent(3, 10)} and not tight.degraded


def test_of_the_first_parts_the_time_of_all_is_learnt() -> None:
    now_s = [0.0]
    cascade = Cascade([source_of([3, 2, 1]), Step(Trees(10, now_s), USE_PREVIOUS, 4.001)], clock=lambda: now_s[0])
    outcome = asyncio.run(cascade.run({}, Deadline.after_ms(60_000, clock=lambda: now_s[0])))
    assert outcome.extents == {"trees": Extent(3, 4)}
    assert cascade.costs["trees"].predict_ms(3) == pytest.approx(10)


def test_a_queue_is_no_reason_to_do_parts_of_what_is_soon_done() -> None:
    """Parts are dearer together than the whole: to do them because others wait makes all wait longer, for good."""
    now_s = [0.0]
    trees = Trees(10, now_s)
    trees.work = StageCost()
    trees.work.note(3, 10)
    cascade = Cascade([source_of([3, 2, 1]), Step(trees, USE_PREVIOUS, 100)], clock=lambda: now_s[0])
    for _ in range(20):
        cascade.costs["trees"].note(3, 90)
    outcome = asyncio.run(cascade.run({}, Deadline.after_ms(60_000, clock=lambda: now_s[0])))
    assert (trees.whole, outcome.extents, outcome.degraded) == (1, {}, False)


def test_not_one_part_is_a_failure() -> None:
    outcome, _ = interrupted([3, 2, 1], parts=5, ms=0.5, head=None)
    assert "had no time for one of its 5 parts" in outcome.skipped["trees"]
    assert (outcome.reasons, outcome.degraded) == ({"trees": Reason.OVERRAN}, True)
    assert outcome.batch.ids.tolist() == [100, 101, 102]


def test_a_scorer_takes_as_many_of_the_best_rows_as_fit_and_no_fewer_than_its_least() -> None:
    now_s, seen = [0.0], list[int]()

    def scored(batch: Batch) -> Float32s:
        seen.append(len(batch))
        now_s[0] += len(batch) / 1000
        return -batch.scores

    step = Step(AScorer(gives(scored)), USE_PREVIOUS, 1000, head=Head(most=40, least=10))
    cascade = Cascade([source_of(range(50)), step], clock=lambda: now_s[0])

    def run(ms: float) -> Outcome:
        return asyncio.run(cascade.run({}, Deadline.after_ms(ms, clock=lambda: now_s[0])))

    for _ in range(20):
        assert not run(60_000).skipped
    some = run(25.5)
    assert (some.extents, some.degraded) == ({"a scorer": Extent(25)}, True)
    assert some.skipped == {"a scorer": "scored the best 25 of 40 rows"}
    assert set(some.batch.ids[np.argsort(-some.batch.scores)][:25].tolist()) == set(range(125, 150))
    seen.clear()
    refused = run(9)
    assert (seen, refused.reasons) == ([], {"a scorer": Reason.NOT_STARTED})
    assert "was not started: it has 9.0 ms, and 10 rows take" in refused.skipped["a scorer"]
    tried = [run(9) for _ in range(20)]
    assert [len(one.reasons) for one in tried].count(0) + len(seen) >= 1 and set(seen) == {10}, (
        "its least, once in a while"
    )


def test_a_stage_with_skip_that_does_a_part_does_not_degrade() -> None:
    outcome, _ = interrupted([3, 2, 1], parts=5, ms=2.5, head=None, policy=SKIP)
    assert (outcome.degraded, outcome.extents) == (False, {"trees": Extent(3, 2)})


@pytest.mark.parametrize(("most", "least"), [(10, 11), (10, 0), (0, 0)])
def test_a_head_that_cannot_be_is_refused(most: int, least: int) -> None:
    with pytest.raises(ContractViolation, match="cannot be"):
        Head(most=most, least=least)
