"""One native thread: calls in turn, at most one that was given up, and nothing queued behind that one."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from infra.cascade.batch import EMPTY
from infra.cascade.lane import ABANDONED, REFUSED, Lane, LaneBusy
from infra.contracts.errors import DependencyUnavailable
from tests.unit.infra.cascade.breaking import Spinning


@pytest_asyncio.fixture
async def lane() -> AsyncIterator[Lane]:
    lane = Lane("test")
    yield lane
    lane.close()


async def started(call: Callable[[], object], lane: Lane) -> asyncio.Task[object]:
    """A task that waits for the call."""
    task = asyncio.create_task(lane.run(call))
    await asyncio.sleep(0)
    return task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


async def test_results_and_errors_come_from_the_lane_s_own_thread(lane: Lane) -> None:
    names = {(await lane.run(threading.current_thread)).name for _ in range(3)}
    assert len(names) == 1 and names != {threading.current_thread().name}
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 / 0)
    assert lane.is_free


async def test_calls_run_one_after_another_in_their_order(lane: Lane) -> None:
    order: list[int] = []
    await asyncio.gather(*(lane.run(lambda at=at: order.append(at)) for at in range(50)))  # type: ignore[misc]
    assert order == list(range(50))


async def test_the_event_loop_goes_on_while_native_code_runs(lane: Lane) -> None:
    turns = 0
    task = await started(lambda: hashlib.pbkdf2_hmac("sha256", b"x", b"y", 300_000), lane)
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10


async def test_a_call_that_was_given_up_before_it_began_never_begins(lane: Lane) -> None:
    spinning, began = Spinning(lane), threading.Event()
    running = asyncio.create_task(spinning(EMPTY))
    await until(spinning.began.is_set)
    queued = await started(began.set, lane)
    assert not lane.is_free
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert (lane.abandoned, lane.refused) == (0, 0), "nobody has given up a call that runs"
    await spinning.until_ended()
    await running
    await lane.run(lambda: None)
    assert not began.is_set()


async def test_of_a_call_that_was_given_up_nothing_comes_and_others_are_refused_until_it_ends() -> None:
    told: list[str] = []
    lane = Lane("test", tell=told.append)
    spinning = Spinning(lane)
    running = asyncio.create_task(spinning(EMPTY))
    await until(spinning.began.is_set)
    behind = await started(lambda: "behind", lane)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for _ in range(3):
        with pytest.raises(LaneBusy):
            await lane.run(lambda: None)
    assert issubclass(LaneBusy, DependencyUnavailable)
    assert (lane.abandoned, lane.refused) == (1, 3)
    assert told == [ABANDONED, *[REFUSED] * 3]
    assert not spinning.ended.is_set()
    await spinning.until_ended()
    assert await behind == "behind", "what had been queued before is done all the same"
    assert await lane.run(lambda: 7) == 7
    lane.close()


async def test_however_many_give_up_at_once_one_call_runs_on(lane: Lane) -> None:
    spinning = [Spinning(lane) for _ in range(8)]
    tasks = [asyncio.create_task(one(EMPTY)) for one in spinning]
    await until(spinning[0].began.is_set)
    for task in tasks:
        task.cancel()
    assert {type(ended) for ended in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}
    await spinning[0].until_ended()
    await lane.run(lambda: None)
    assert [one.began.is_set() for one in spinning] == [True] + [False] * 7
    assert lane.abandoned == 1


async def test_a_call_given_up_just_as_the_one_before_it_ends_is_the_one_that_is_waited_for(lane: Lane) -> None:
    first, second = Spinning(lane), Spinning(lane)
    one, two = asyncio.create_task(first(EMPTY)), asyncio.create_task(second(EMPTY))
    await until(first.began.is_set)
    one.cancel()
    await asyncio.sleep(0)
    first.let_go.set()
    second.began.wait(30)  # holds the event loop, so that it learns of both at once
    two.cancel()
    await asyncio.gather(one, two, return_exceptions=True)
    assert lane.abandoned == 2
    with pytest.raises(LaneBusy):
        await lane.run(lambda: None)
    await second.until_ended()


async def test_a_call_that_ended_just_before_it_was_given_up_is_not_counted(lane: Lane) -> None:
    task = await started(lambda: None, lane)
    lane._pool.submit(lambda: None).result()  # holds the event loop until the call before it has ended
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lane.abandoned == 0 and lane.is_free


async def test_a_lane_that_closes_gives_up_what_waits(lane: Lane) -> None:
    spinning = Spinning(lane)
    running = asyncio.create_task(spinning(EMPTY))
    await until(spinning.began.is_set)
    waiting = await started(lambda: None, lane)
    lane.close()
    spinning.let_go.set()
    await running
    with pytest.raises(asyncio.CancelledError):
        await waiting
