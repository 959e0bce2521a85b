"""What waits for the native thread is scored in one call: whose rows, whose deadlines, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import xgboost

from bentos.ranking.trees import predict
from bentos.web.batching import Batcher
from infra.cascade.lane import Lane, LaneBusy
from infra.contracts.candidates import Float32s
from infra.contracts.errors import DeadlineExceeded
from infra.resilience.deadline import Deadline

WIDTH = 4


class Clock:
    """Moves when a model works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Model:
    """The sum of each row, times `times`, at `row_ms` of the clock a row; keeps the calls; waits while the gate is shut."""

    def __init__(self, clock: Clock, *, times: float = 1.0, row_ms: float = 1.0) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.calls: list[Float32s] = []
        self._clock, self._times, self._row_ms = clock, times, row_ms

    def score(self, rows: Float32s) -> Float32s:
        self.calls.append(rows)
        self.begun.release()
        assert self.gate.wait(30)
        self._clock.now_s += self._row_ms * len(rows) / 1000
        if np.isnan(rows).any():
            raise ArithmeticError("no number")
        return rows.sum(axis=1) * np.float32(self._times)

    @property
    def lengths(self) -> list[int]:
        return [len(rows) for rows in self.calls]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def model(clock: Clock) -> Iterator[Model]:
    made = Model(clock)
    yield made
    made.gate.set()


@pytest.fixture
def lane() -> Iterator[Lane]:
    made = Lane("batching")
    yield made
    made.close()


@pytest.fixture
def batcher(lane: Lane, clock: Clock) -> Batcher[Model]:
    return Batcher(lane, Model.score, most_rows=100, clock=clock)


def rows_of(n: int, value: float = 1.0) -> Float32s:
    return np.full((n, WIDTH), value, np.float32)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def thread_taken(batcher: Batcher[Model], model: Model, clock: Clock) -> AsyncIterator[None]:
    """Two calls of one row are under way in the block's body, and end with it."""
    model.gate.clear()
    patient = Deadline.after_ms(10_000, clock=clock)
    first = [asyncio.create_task(batcher.score(model, rows_of(1), patient)) for _ in range(2)]
    await until(lambda: model.begun.acquire(blocking=False))
    try:
        yield
        await asyncio.sleep(0)  # those whom the body started join the queue
    finally:
        model.gate.set()
    assert [(await one).tolist() for one in first] == [[WIDTH], [WIDTH]]


async def test_those_who_wait_for_the_thread_share_one_call_and_get_their_own_scores(
    batcher: Batcher[Model], model: Model, clock: Clock
) -> None:
    patient = Deadline.after_ms(10_000, clock=clock)
    async with thread_taken(batcher, model, clock):
        tasks = [asyncio.create_task(batcher.score(model, rows_of(n, n), patient)) for n in (3, 1, 7)]
    for n, scores in zip((3, 1, 7), await asyncio.gather(*tasks), strict=True):
        assert scores.tolist() == [WIDTH * n] * n
    assert model.lengths == [1, 1, 11]
    assert (batcher.calls, batcher.requests) == (3, 5)


async def test_a_request_that_finds_the_thread_free_has_it_to_itself(
    batcher: Batcher[Model], model: Model, clock: Clock
) -> None:
    rows = rows_of(5)
    for _ in range(3):
        await batcher.score(model, rows, Deadline.after_ms(10_000, clock=clock))
    assert all(call is rows for call in model.calls) and batcher.calls == 3


async def test_a_shared_call_stays_within_its_rows_and_no_request_is_cut(
    batcher: Batcher[Model], model: Model, clock: Clock
) -> None:
    patient, sizes = Deadline.after_ms(10_000, clock=clock), (60, 60, 40, 250, 30)
    async with thread_taken(batcher, model, clock):
        tasks = [asyncio.create_task(batcher.score(model, rows_of(n), patient)) for n in sizes]
    assert [len(scores) for scores in await asyncio.gather(*tasks)] == list(sizes)
    assert model.lengths == [1, 1, 100, 90, 250]


async def test_two_models_never_share_a_call_and_one_that_was_replaced_is_let_go(
    batcher: Batcher[Model], model: Model, clock: Clock
) -> None:
    patient, other = Deadline.after_ms(10_000, clock=clock), Model(clock, times=10)
    async with thread_taken(batcher, model, clock):
        asked = [
            asyncio.create_task(batcher.score(one, rows_of(2), patient)) for one in (model, other, model, other, model)
        ]
    answers = [float(scores[0]) for scores in await asyncio.gather(*asked)]
    assert answers == [WIDTH, 10 * WIDTH, WIDTH, 10 * WIDTH, WIDTH]
    assert model.lengths == [1, 1, 6] and other.lengths == [4]
    gone = weakref.ref(other)
    del other, asked

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    await until(is_gone)


async def test_the_nearest_deadline_goes_first_and_takes_along_what_it_leaves_time_for(
    batcher: Batcher[Model], model: Model, clock: Clock
) -> None:
    patient = Deadline.after_ms(10_000, clock=clock)
    for n in (10, 20, 30) * 5:  # a row takes 1 ms
        await batcher.score(model, rows_of(n), patient)
    model.calls.clear()
    async with thread_taken(batcher, model, clock):
        urgent = Deadline.after_ms(32, clock=clock)
        tasks = [asyncio.create_task(batcher.score(model, rows_of(n), patient)) for n in (40, 15)]
        tasks.append(asyncio.create_task(batcher.score(model, rows_of(10), urgent)))
    await asyncio.gather(*tasks)
    assert model.lengths == [1, 1, 25, 40]


async def test_who_could_not_be_served_in_time_is_told_at_once_and_costs_the_thread_nothing(
    batcher: Batcher[Model], model: Model, clock: Clock
) -> None:
    patient = Deadline.after_ms(10_000, clock=clock)
    for n in (10, 20, 30) * 5:
        await batcher.score(model, rows_of(n), patient)
    model.calls.clear()
    async with thread_taken(batcher, model, clock):
        late = asyncio.create_task(batcher.score(model, rows_of(50), Deadline.after_ms(20, clock=clock)))
        passed = asyncio.create_task(batcher.score(model, rows_of(1), Deadline.after_ms(-1, clock=clock)))
        fine = asyncio.create_task(batcher.score(model, rows_of(5), patient))
    assert len(await fine) == 5
    with pytest.raises(DeadlineExceeded, match="50 rows could not be scored in time"):
        await late
    with pytest.raises(DeadlineExceeded):
        await passed
    assert model.lengths == [1, 1, 5]


async def test_who_leaves_takes_nothing_from_the_others(batcher: Batcher[Model], model: Model, clock: Clock) -> None:
    patient = Deadline.after_ms(10_000, clock=clock)
    async with thread_taken(batcher, model, clock):
        tasks = [asyncio.create_task(batcher.score(model, rows_of(n), patient)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
    assert [len(await task) for task in tasks[1:]] == [3, 4]
    assert model.lengths == [1, 1, 7]


async def test_a_call_that_all_have_left_is_the_lane_s_abandoned_one(
    batcher: Batcher[Model], model: Model, lane: Lane, clock: Clock
) -> None:
    patient = Deadline.after_ms(10_000, clock=clock)
    async with thread_taken(batcher, model, clock):
        tasks = [asyncio.create_task(batcher.score(model, rows_of(n), patient)) for n in (2, 3)]
        await asyncio.sleep(0)
        other = Model(clock)
        other.gate.clear()
        held = [asyncio.create_task(batcher.score(other, rows_of(n), patient)) for n in (2, 3)]
    await asyncio.gather(*tasks)
    await until(lambda: other.calls)
    held[0].cancel()
    await asyncio.sleep(0.01)
    assert lane.abandoned == 0
    held[1].cancel()
    await until(lambda: lane.abandoned == 1)
    with pytest.raises(LaneBusy):
        await batcher.score(model, rows_of(1), patient)
    other.gate.set()
    await until(lambda: lane.is_free)
    assert len(await batcher.score(model, rows_of(1), patient)) == 1
    assert lane.abandoned == 1


async def test_an_error_is_told_to_all_of_the_call_and_to_nobody_after(
    batcher: Batcher[Model], model: Model, clock: Clock
) -> None:
    patient = Deadline.after_ms(10_000, clock=clock)
    async with thread_taken(batcher, model, clock):
        tasks = [asyncio.create_task(batcher.score(model, rows_of(2, value), patient)) for value in (1.0, np.nan)]
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, ArithmeticError)
    assert len(await batcher.score(model, rows_of(2), patient)) == 2


async def test_callers_who_come_and_go_at_any_moment_all_get_their_own_scores_or_leave(lane: Lane) -> None:
    batcher: Batcher[int] = Batcher(lane, lambda times, rows: rows[:, 0] * np.float32(times), most_rows=8)
    rng = np.random.default_rng(7)
    served = left = 0

    async def caller(number: int) -> None:
        nonlocal served, left
        for turn in range(60):
            rows = rows_of(int(rng.integers(1, 5)), number * 100 + turn)
            times = int(rng.integers(1, 3))
            task = asyncio.create_task(batcher.score(times, rows, Deadline.after_ms(5000)))
            for _ in range(int(rng.integers(0, 12))):
                await asyncio.sleep(0)
            if rng.random() < 0.2:
                task.cancel()
            try:
                scores = await task
            except (asyncio.CancelledError, LaneBusy):
                left += 1
                continue
            served += 1
            assert scores.tolist() == (rows[:, 0] * np.float32(times)).tolist()

    async with asyncio.timeout(60):
        await asyncio.gather(*(caller(number) for number in range(20)))
    assert served > 500 and left > 50 and batcher.calls < batcher.requests


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    rng = np.random.default_rng(3)
    x = rng.random((3000, 20), np.float32)
    data = xgboost.DMatrix(x, label=rng.integers(0, 3, len(x)), qid=np.repeat(np.arange(30), 100))
    trained = xgboost.train({"objective": "rank:ndcg", "max_depth": 6, "seed": 5, "nthread": 1}, data, 60)
    trained.set_param({"nthread": 1})
    return trained


async def test_xgboost_gives_the_same_bits_together_as_alone(booster: xgboost.Booster, lane: Lane) -> None:
    rng, batcher = np.random.default_rng(11), Batcher(lane, predict, most_rows=4000)
    asked = [rng.random((int(n), 20), np.float32) for n in rng.choice([1, 2, 31, 63, 64, 65, 127, 200, 1000], 60)]
    alone = [predict(booster, rows) for rows in asked]
    together = await asyncio.gather(*(batcher.score(booster, rows, Deadline.after_ms(60_000)) for rows in asked))
    assert batcher.calls < len(asked)
    for one, other in zip(alone, together, strict=True):
        assert one.tobytes() == other.tobytes()
