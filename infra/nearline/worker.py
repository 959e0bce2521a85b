"""worker: reads its shards of the log, counts, and applies what it counted behind the fence; while Redis works it counts on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.features import BOARD, FeaturePlan
from infra.eventlog.protocol import EventLog, Slice, Terms
from infra.nearline.counting import Horizon, counted, counted_once, within_one_half
from infra.nearline.members import Members
from infra.nearline.state import Changes, Claim, Fenced, StateStore
from infra.nearline.state_terms import StateTerms
from infra.resilience.complaints import Complaints

_log = logging.getLogger("headgate.nearline")

PAGE = 800
"""Records of a shard that are read and applied at a time: an apply of so many holds Redis for about a millisecond."""

_IDLE_S = 0.005
_IDLEST_S = 0.025
"""How long it waits before it looks again where there was nothing new."""

_SHARE_EVERY_S = 1.0
_DOWN_S = 0.5
_CLEAN_EVERY_S = 2.0
_CLEAN_ENTITIES = 8
_CLEAN_AFTER_US = 600_000_000
"""What counts in no window is dropped ten minutes later: a service's clock may be behind the worker's."""


@dataclass(slots=True)
class Progress:
    """What a worker has done since it started. applies: calls, one a shard; failures: times that Redis or the log was away."""

    records: int = 0
    applies: int = 0
    fenced: int = 0
    failures: int = 0


class Worker:
    """One worker process's loop. Two workers that take themselves for the owner of a shard do no harm: one of them is fenced."""

    def __init__(
        self,
        log: EventLog,
        store: StateStore,
        plan: FeaturePlan,
        members: Members,
        *,
        terms: StateTerms,
        name: str,
        horizon: int,
        page: int = PAGE,
    ) -> None:
        """name: unique, and not used again after a crash. horizon: the log's, for finding duplicates. page: records."""
        self._log = log
        self._store = store
        self._plan = plan
        self._members = members
        self._terms = terms
        self._name = name
        self._horizon = Horizon(horizon)
        self._page = page
        self._claims: dict[int, Claim] = {}
        self._read_upto: dict[int, int] = {}
        self._terms_read: dict[int, Terms] = {}
        self._stale: dict[int, dict[tuple[str, str], list[str | int]]] = {}
        self._touched: dict[int, list[tuple[str, str]]] = {}
        self._shared_at_s = self._cleaned_at_s = float("-inf")
        self._complaints = Complaints(_log)
        self.progress = Progress()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what was read is applied and the shards are released before it returns.

        Waits while Redis or the log is away. Raises LogLost where events are gone: an operator must decide.
        """
        idle_s = _IDLE_S
        try:
            while not _is_over(stop):
                try:
                    busy = await self._burst(stop)
                except DependencyUnavailable as error:
                    self.progress.failures += 1
                    self._complaints.note("away", str(error))
                    self._forget()
                    busy, idle_s = False, _DOWN_S
                idle_s = _IDLE_S if busy else min(2 * idle_s, _IDLEST_S if self._claims else _DOWN_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), idle_s)
        finally:
            with contextlib.suppress(DependencyUnavailable):
                await self._store.release(list(self._claims.values()))
                await self._members.leave()

    async def _burst(self, stop: asyncio.Event) -> bool:
        """Read and apply until nothing new is there. Whether there was anything."""
        busy = False
        applying: asyncio.Task[None] | None = None
        reading: asyncio.Task[list[Slice]] | None = None
        try:
            while not _is_over(stop):
                if time.monotonic() - self._shared_at_s > _SHARE_EVERY_S:
                    if applying is not None:
                        await applying
                        applying = None
                    await self._take_share()
                    await self._clean()
                if reading is None:
                    reading = self._begin_reading()
                slices, reading = await reading, None
                slices = self._wanted(slices)
                if any(self._terms_read.get(piece.shard) != piece.terms for piece in slices):
                    slices = await self._of_the_same_log(slices)
                if not slices:
                    break
                busy = True
                for piece in slices:
                    self._read_upto[piece.shard] = piece.upto
                reading = self._begin_reading()
                await asyncio.sleep(0)  # the request is on its way while this one is counted
                if self._log.finds_duplicates:
                    changes = self._count(slices)
                    if applying is not None:
                        await applying
                    applying = asyncio.create_task(self._apply(changes))
                    await asyncio.sleep(0)
                else:
                    await self._count_once_and_apply(slices)
            if applying is not None:
                await applying
                applying = None
        finally:
            for task in (applying, reading):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await task
        return busy

    def _wanted(self, slices: Sequence[Slice]) -> list[Slice]:
        """Without those of shards that were lost or claimed anew meanwhile."""
        return [piece for piece in slices if self._read_upto.get(piece.shard) == piece.after]

    async def _of_the_same_log(self, slices: Sequence[Slice]) -> list[Slice]:
        """The slices, once it is seen of those that are new here, or in a new term, that they follow on what was counted."""
        new = [piece for piece in slices if self._terms_read.get(piece.shard) != piece.terms]
        await self._terms.go_on([(piece, self._claims[piece.shard]) for piece in new])
        self._terms_read |= {piece.shard: piece.terms for piece in new}
        return self._wanted(slices)

    def _begin_reading(self) -> asyncio.Task[list[Slice]]:
        return asyncio.create_task(self._log.read(dict(self._read_upto), count=self._page))

    def _count(self, slices: Sequence[Slice]) -> dict[int, Changes]:
        changes = {piece.shard: counted(piece, self._plan) for piece in slices}
        self._note(changes, slices)
        return changes

    async def _count_once_and_apply(self, slices: Sequence[Slice]) -> None:
        """Part by part, for what one part has seen must be known before the next is counted."""
        parts = {piece.shard: within_one_half(piece, self._horizon) for piece in slices}
        while parts:
            firsts = [waiting.pop(0) for waiting in parts.values()]
            parts = {shard: waiting for shard, waiting in parts.items() if waiting}
            changes = {
                piece.shard: await counted_once(piece, self._plan, self._store, self._horizon) for piece in firsts
            }
            self._note(changes, firsts)
            await self._apply(changes)

    def _note(self, changes: Mapping[int, Changes], slices: Sequence[Slice]) -> None:
        """Let what is to be dropped go with these changes, and remember some of whom they touch."""
        for shard, change in changes.items():
            change.stale = self._stale.pop(shard, {})
            self._touched[shard] = [entity for entity in islice(change.deltas, _CLEAN_ENTITIES) if entity[1] != BOARD]
        self.progress.records += sum(len(piece.payloads) for piece in slices)

    async def _apply(self, changes: Mapping[int, Changes]) -> None:
        mine = {shard: change for shard, change in changes.items() if shard in self._claims}
        outcome = await self._store.apply(self._claims, mine)
        self.progress.applies += len(mine)
        for shard, fenced in outcome.items():
            if fenced is None:
                self._claims[shard] = replace(self._claims[shard], offset=mine[shard].upto)
            else:
                self._lose(shard, fenced)

    def _lose(self, shard: int, fenced: Fenced) -> None:
        self.progress.fenced += 1
        _log.warning("FENCED: %s It is left to the other.", fenced)
        self._claims.pop(shard, None)
        self._read_upto.pop(shard, None)
        self._terms_read.pop(shard, None)

    def _forget(self) -> None:
        """After a failure it is not known what was applied: the next claim of each shard says."""
        self._claims.clear()
        self._read_upto.clear()
        self._terms_read.clear()
        self._shared_at_s = float("-inf")

    async def _take_share(self) -> None:
        """Claim the shards that are this worker's now, keep those it has, and release the others."""
        wanted = await self._members.share()
        surplus = [claim for shard, claim in self._claims.items() if shard not in wanted]
        if surplus:
            await self._store.release(surplus)
            for claim in surplus:
                self._claims.pop(claim.shard)
                self._read_upto.pop(claim.shard)
                self._terms_read.pop(claim.shard, None)
        held = list(self._claims.values())
        for claim, kept in zip(held, await self._store.renew(held) if held else [], strict=True):
            if not kept:
                self._lose(claim.shard, Fenced(f"Shard {claim.shard} was claimed by another worker."))
        for shard in sorted(wanted - self._claims.keys()):
            claim_or_none = await self._store.claim(shard, self._name)
            if claim_or_none is not None:
                self._claims[shard] = claim_or_none
                self._read_upto[shard] = claim_or_none.offset
        self._shared_at_s = time.monotonic()

    async def _clean(self) -> None:
        """Look at some entities, a few a shard, for what counts in no window any more; it goes with the next apply."""
        if time.monotonic() - self._cleaned_at_s < _CLEAN_EVERY_S or not self._claims:
            return
        self._cleaned_at_s = time.monotonic()
        now_us = time.time_ns() // 1000 - _CLEAN_AFTER_US
        boards = [(kind, BOARD) for kind in self._plan.kinds() if self._plan.of(kind, boards=True)]
        entities = [(*entity, shard) for shard in self._claims for entity in (*self._touched.pop(shard, ()), *boards)]
        for (kind, entity_id, shard), state in zip(entities, await self._store.read(entities), strict=True):
            gone = self._plan.stale(kind, state, now_us)
            if gone:
                pairs: list[str | int] = [part for name in gone for part in (name, state[name])]
                self._stale.setdefault(shard, {})[kind, entity_id] = pairs


def _is_over(stop: asyncio.Event) -> bool:
    """Whether to stop. Raises CancelledError where this task was cancelled: redis-py waits with `asyncio.wait_for`, which in
    Python 3.11 loses a cancellation that comes when what it waits for is done (mended in 3.12, gh-96764)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return stop.is_set()
