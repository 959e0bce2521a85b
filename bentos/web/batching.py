"""batching: native calls of concurrent requests made one: what waits for the native thread is scored together when it is free.

Not BentoML's dispatcher, which forms a batch in the event loop before the native thread is free, and looks whether it is once a
millisecond (the loop's finest timer): beside the same calls unbatched it made 0.4 of them with two callers of one row, and 0.9
with two of 1000. `make bench-cascade` measures both; tests/contract/test_bentoml_internals.py says what of it is in the way.
Here the thread itself takes what has gathered at the moment it begins, so that nobody waits for company, and there is no gap.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from infra.cascade.costs import StageCost
from infra.cascade.lane import Lane
from infra.contracts.candidates import Float32s
from infra.contracts.errors import DeadlineExceeded
from infra.resilience.deadline import Clock, Deadline

_AHEAD = 2
"""Calls with which the thread is busy until the event loop has made ready the next: up to so many requests at a time share nothing,
for sharing among fewer costs more than it brings."""

M = TypeVar("M")
"""The model, as a snapshot has it loaded."""


@dataclass(eq=False, slots=True)
class _Member(Generic[M]):
    """A request that waits. call: the native call that it is part of; None before."""

    model: M
    rows: Float32s
    deadline: Deadline
    scores: asyncio.Future[Float32s]
    call: _Call[M] | None = None


@dataclass(eq=False, slots=True)
class _Call(Generic[M]):
    """A native call. is_under_way: who its members are is settled. late: those that it could not have served in time."""

    task: asyncio.Task[None] | None = None
    is_under_way: bool = False
    members: list[_Member[M]] = field(default_factory=list)
    late: list[_Member[M]] = field(default_factory=list)
    parts: Sequence[Float32s] = ()

    def let_go(self) -> tuple[list[_Member[M]], Sequence[Float32s]]:
        """Its members and their scores, once. They point at each other: whoever froze the collector now would keep the model."""
        members, parts = self.members, self.parts
        self.members, self.parts, self.task = [], (), None
        for member in members:
            member.call = None
        return members, parts

    @property
    def is_left(self) -> bool:
        """Whether there were members, and none waits for it any longer."""
        return bool(self.members) and all(member.scores.done() for member in self.members)


class Batcher(Generic[M]):
    """Requests of one model share native calls; those of two models, as while a canary is tried, never do.

    It keeps no model: each member brings its own, so that one that was replaced is let go with its last request. A request that
    finds fewer than two calls under way gets one of its own. Those that wait go by deadline, the nearest first; a call takes as
    many as it is predicted to serve by the first one's. Who gives up takes nothing from the others; a call that all have given up
    is the lane's abandoned one. cost: of native calls, without the waiting
    for the thread. calls, requests: native calls made, and requests scored by them.
    """

    def __init__(
        self, lane: Lane, score: Callable[[M, Float32s], Float32s], *, most_rows: int, clock: Clock = time.monotonic
    ) -> None:
        """score: native; float32 [n, features] -> float32 [n], each row's whatever the others are. most_rows: of a shared call."""
        self._lane = lane
        self._score = score
        self._most_rows = most_rows
        self._clock = clock
        self._waiting: deque[_Member[M]] = deque()
        self._next: _Call[M] | None = None
        self.cost = StageCost()
        self._under_way = 0
        self.calls = 0
        self.requests = 0

    async def score(self, model: M, rows: Float32s, deadline: Deadline) -> Float32s:
        """float32 [n]. Raises what the model raises, LaneBusy, DeadlineExceeded where it would not have ended in time."""
        if self._under_way < _AHEAD and not self._waiting:
            self._under_way += 1
            try:
                return await self._lane.run(partial(self._timed, model, rows))
            finally:
                self._under_way -= 1
        loop = asyncio.get_running_loop()
        member = _Member(model, rows, deadline, loop.create_future())
        self._waiting.append(member)
        self._go_on(loop)
        try:
            return await member.scores
        except asyncio.CancelledError:
            self._drop_left(member.call)
            raise

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that the thread comes for those who wait."""
        if self._waiting and self._next is None:
            call = self._next = _Call[M]()
            call.task = loop.create_task(self._run(call, loop), name="batch")

    async def _run(self, call: _Call[M], loop: asyncio.AbstractEventLoop) -> None:
        self._under_way += 1
        try:
            await self._lane.run(partial(self._begin, call, loop))
        except Exception as error:  # noqa: BLE001 - each of its members is told
            if self._next is call:  # the lane took no calls
                self._next = None
                call.members = list(self._waiting)
                self._waiting.clear()
            for member in call.members:
                if not member.scores.done():
                    member.scores.set_exception(error)
        finally:
            self._under_way -= 1
            members, parts = call.let_go()
        for member, scores in zip(members, parts, strict=False):
            if not member.scores.done():
                member.scores.set_result(scores)

    def _begin(self, call: _Call[M], loop: asyncio.AbstractEventLoop) -> None:
        """In the native thread: take who waits, and score them. Who comes from here on is the next call's."""
        self._next = None
        self._take(call)
        call.is_under_way = True
        if call.late or call.is_left or self._waiting:
            loop.call_soon_threadsafe(self._begun, call, loop)
        members = call.members
        if not members:
            return
        rows = [member.rows for member in members]
        model = members[0].model
        if len(rows) == 1:
            call.parts = [self._timed(model, rows[0])]
            return
        scores = self._timed(model, np.concatenate(rows))
        self.requests += len(rows) - 1
        call.parts = np.split(scores, np.cumsum([len(part) for part in rows])[:-1])

    def _take(self, call: _Call[M]) -> None:
        waiting = []
        while self._waiting:
            waiting.append(self._waiting.popleft())
        waiting.sort(key=lambda member: member.deadline.ends_s)
        left, n = [], 0
        for member in waiting:
            if member.scores.done():
                continue
            total = n + len(member.rows)
            first = call.members[0] if call.members else member
            left_ms = first.deadline.remaining_ms()
            in_time = self.cost.predict_ms(total) <= left_ms
            if first is member and not in_time and (left_ms <= 0 or not self.cost.may_try()):
                call.late.append(member)
            elif first is member or (in_time and member.model is first.model and total <= self._most_rows):
                member.call = call
                call.members.append(member)
                n = total
            else:
                left.append(member)
        self._waiting.extendleft(reversed(left))

    def _begun(self, call: _Call[M], loop: asyncio.AbstractEventLoop) -> None:
        for member in call.late:
            if not member.scores.done():
                late = f"{len(member.rows):,} rows could not be scored in time: {member.deadline.remaining_ms():.1f} ms are left."
                member.scores.set_exception(DeadlineExceeded(late))
        self._drop_left(call)
        self._go_on(loop)

    def _drop_left(self, call: _Call[M] | None) -> None:
        if call is not None and call.task is not None and call.is_under_way and call.is_left:
            call.task.cancel()

    def _timed(self, model: M, rows: Float32s) -> Float32s:
        self.calls += 1
        self.requests += 1
        started_s = self._clock()
        scores = self._score(model, rows)
        self.cost.note(len(rows), (self._clock() - started_s) * 1000)
        return scores
