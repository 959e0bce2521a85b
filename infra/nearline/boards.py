"""boards: what the boards of all shards say at one moment, as a service keeps them: what many take, what is new, what stands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS, shard_of
from infra.contracts.features import BOARD, Aggregation, FeaturePlan, FeatureValue, Fields, State
from infra.contracts.ids import ApplicationName
from infra.nearline.state import state_of
from infra.resilience.complaints import Complaints
from infra.snapshots import keys

_log = logging.getLogger("headgate.boards")

EVERY_S = 1.0
"""How long a reader rests after a read, at least."""

RESTS = 10
"""And at least so many times as long as the read took: however large the boards grow, they take a tenth of the event loop."""

_RESTS_ASKED = 2
"""The same where somebody waits for what was just logged: then they take a third."""

_LOOK_EVERY_S = 0.02

_PASSES = 20
"""Reads of one refresh, at most: under a storm of new items up to eight were seen."""

_READ = """#!lua flags=no-writes
local found = {redis.call('HGET', KEYS[1], 'offset') or '0'}
for i = 2, #KEYS do found[i] = redis.call('HGETALL', KEYS[i]) end
return found
"""
# One script a shard: the worker moves offset and states between any two commands.

_REMEMBERED = 64
"""Boards of which it is remembered what was said anew: whoever looks less often compares all that stands."""

Standing = Mapping[str, Mapping[str, str]]
"""By feature and entity id."""


def said_anew(before: Standing, now: Standing) -> frozenset[str]:
    """The entities of which something else stands. It costs as much as stands: 100,000 take some 10 ms, in which others may run."""
    pairs = [(now.get(name, {}), before.get(name, {})) for name in now.keys() | before.keys()]
    changed = {entity_id for new, old in pairs for entity_id, said in new.items() if old.get(entity_id) != said}
    return frozenset(changed.union(entity_id for new, old in pairs for entity_id in old if entity_id not in new))


@dataclass(frozen=True, slots=True)
class Board:
    """The TOP, NEWEST and STANDING features of one kind at a moment, merged over the shards.

    lists: by feature, (entity id, count or millisecond), best first, at most the feature's k, ties by id. about: the other
    features of the listed entities that have a state. standing: by STANDING feature and entity id, what stands, the usual left
    out; the same object on a reader's next board where nothing else was said. offsets: by shard, up to which records this counts;
    with `now_us` they give the same board again, from the archive alone. now_us: 0 before the first read. mark: a reader's name for
    this `standing`; None where nobody compared it. said: the last marks before it, oldest first, and what was said anew after each.
    """

    now_us: int = 0
    offsets: tuple[int, ...] = ()
    lists: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, FeatureValue]] = field(default_factory=dict)
    standing: Standing = field(default_factory=dict)
    mark: object = field(default=None, compare=False, repr=False)
    said: tuple[tuple[object, frozenset[str]], ...] = field(default=(), compare=False, repr=False)

    def said_since(self, before: Board) -> frozenset[str]:
        """The entities of which something else stands than on that board."""
        if before.mark is not None:
            if before.mark is self.mark:
                return frozenset()
            for at, (mark, _) in enumerate(self.said):
                if mark is before.mark:
                    return frozenset().union(*(entities for _, entities in self.said[at:]))
        return said_anew(before.standing, self.standing)

    def list(self, name: str) -> tuple[tuple[str, int], ...]:
        """One feature's list; empty before the first read."""
        return self.lists.get(name, ())


NO_BOARD = Board()


@dataclass(frozen=True, slots=True)
class ShardBoard:
    """One shard at one moment. state: of its board; about: the states of some of its entities."""

    offset: int
    state: State
    about: Mapping[str, State]


def merged_board(plan: FeaturePlan, kind: str, shards: Sequence[ShardBoard], now_us: int) -> Board:
    """The board of all shards, in their order: a pure function of what each of them holds and the clock.

    An entity lies in one shard, so that merging is choosing.
    """
    lists: dict[str, tuple[tuple[str, int], ...]] = {}
    standing: dict[str, dict[str, str]] = {}
    states = [Fields(shard.state) for shard in shards]
    for spec in plan.of(kind, boards=True):
        if spec.aggregation is Aggregation.STANDING:
            parts = [spec.standing(state) for state in states]
            standing[spec.name] = {entity_id: value for part in parts for entity_id, value in part.items()}
            continue
        values = [pair for state in states for pair in spec.board(state, now_us).items()]
        lists[spec.name] = tuple(sorted(values, key=lambda pair: (-pair[1], pair[0]))[: spec.k])
    listed = _names(lists)
    about = {
        entity_id: plan.features(kind, state, now_us)
        for shard in shards
        for entity_id, state in shard.about.items()
        if entity_id in listed and state
    }
    return Board(now_us, tuple(shard.offset for shard in shards), lists, about, standing)


def _names(lists: Mapping[str, Sequence[tuple[str, int]]]) -> set[str]:
    return {entity_id for pairs in lists.values() for entity_id, _ in pairs}


class BoardReader:
    """Reads the boards in the background. While Redis is away the last one stays, and `age_s` tells how old it is."""

    def __init__(
        self, client: redis.asyncio.Redis, application: ApplicationName, plan: FeaturePlan, *, kind: str
    ) -> None:
        self._client = client
        self._application = application
        self._plan = plan
        self._kind = kind
        self._read = client.register_script(_READ)
        self._read_at_s = self._took_s = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._complaints = Complaints(_log)
        self.current = NO_BOARD

    @property
    def age_s(self) -> float | None:
        """How long ago the current board was read; None before the first."""
        return time.monotonic() - self._read_at_s if self.current is not NO_BOARD else None

    async def start(self) -> None:
        """Begin to read; returns at once."""
        self._task = asyncio.create_task(self._run(), name="boards")

    async def stop(self) -> None:
        """End it; the last board stays."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def reach(self, shard: int, offset: int, *, within_s: float) -> bool:
        """Whether the current board counts that record, which is waited for so long. Raises DependencyUnavailable.

        The board is read at once where the worker has counted the record, for all that wait for one together: however many do,
        they take one of the client's connections.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self._counts(shard, offset):
                    async with self._one_at_a_time:
                        if not self._counts(shard, offset) and await self._position(shard) >= offset:
                            await asyncio.sleep(self._read_at_s + _RESTS_ASKED * self._took_s - time.monotonic())
                            await self._refresh(time.time_ns() // 1000)
                    if not self._counts(shard, offset):
                        await asyncio.sleep(_LOOK_EVERY_S)
        return self._counts(shard, offset)

    def _counts(self, shard: int, offset: int) -> bool:
        return self.current is not NO_BOARD and self.current.offsets[shard] >= offset

    async def refresh(self, now_us: int) -> None:
        """Read all shards, one after another. Raises DependencyUnavailable; then the current board stays."""
        async with self._one_at_a_time:
            await self._refresh(now_us)

    async def _refresh(self, now_us: int) -> None:
        """Two at a time could put an older board in the place of a newer one.

        What is new on a board is asked for in another read of its shard, board and offset with it, until nothing is: only then
        the board is what its offsets say. The current board stays where the boards change faster than that.
        """
        began_s = time.monotonic()
        asked: dict[int, set[str]] = {shard: set() for shard in range(SHARDS)}
        for entity_id in _names(self.current.lists):
            asked[shard_of(self._kind, entity_id)].add(entity_id)
        wanted: set[int] = set(asked)
        shards: dict[int, ShardBoard] = {}
        for _ in range(_PASSES):
            for shard in sorted(wanted):
                shards[shard] = await self._shard(shard, asked[shard])
            board = await self._merged([shards[shard] for shard in asked], now_us)
            wanted = set()
            for entity_id in _names(board.lists):
                shard = shard_of(self._kind, entity_id)
                if entity_id not in asked[shard]:
                    asked[shard].add(entity_id)
                    wanted.add(shard)
            if not wanted:
                self.current = board
                self._read_at_s = time.monotonic()
                self._took_s = self._read_at_s - began_s
                return
        self._complain(f"they changed during each of {_PASSES} reads.")

    async def _merged(self, shards: list[ShardBoard], now_us: int) -> Board:
        """In a thread: of a busy shop it takes some hundred milliseconds, which no request may wait for."""
        return await asyncio.to_thread(self._merge, shards, now_us)

    def _merge(self, shards: list[ShardBoard], now_us: int) -> Board:
        board, before = merged_board(self._plan, self._kind, shards, now_us), self.current
        said = said_anew(before.standing, board.standing)
        if not said and before.mark is not None:
            return replace(board, standing=before.standing, mark=before.mark, said=before.said)
        return replace(board, mark=object(), said=(*before.said, (before.mark, said))[-_REMEMBERED:])

    async def _position(self, shard: int) -> int:
        """Up to where the worker has counted."""
        name = keys.nearline_position(self._application, shard)
        try:
            return int(await cast("Awaitable[bytes | None]", self._client.hget(name, "offset")) or 0)
        except (RedisError, OSError, TimeoutError) as error:
            raise _unreadable(error) from error

    async def _shard(self, shard: int, entities: set[str]) -> ShardBoard:
        application, kind = self._application, self._kind
        names = sorted(entities)
        wanted = [
            keys.nearline_position(application, shard),
            keys.nearline_state(application, kind, BOARD, shard=shard),
            *(keys.nearline_state(application, kind, entity_id) for entity_id in names),
        ]
        try:
            reply = cast("list[object]", await self._read(keys=wanted))
        except (RedisError, OSError, TimeoutError) as error:
            raise _unreadable(error) from error
        return await asyncio.to_thread(_shard_board, names, reply)

    async def _run(self) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await self.refresh(time.time_ns() // 1000)
            except DependencyUnavailable as error:
                self._complain(str(error))
            except Exception as error:  # noqa: BLE001 - whatever a board holds, the next one is read
                self._complain(f"{type(error).__name__}: {error}")
            await asyncio.sleep(max(EVERY_S, RESTS * (time.monotonic() - began_s)))

    def _complain(self, why: str) -> None:
        age_s = self.age_s
        kept = "there is none yet" if age_s is None else f"the last one, read {age_s:.0f} s ago, stays"
        self._complaints.note("boards", f"boards of {self._application}: {why} {kept}")


def _unreadable(error: Exception) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"The boards cannot be read: {type(error).__name__}: {error}.", mend="Run: make status"
    )


def _shard_board(names: Sequence[str], reply: Sequence[object]) -> ShardBoard:
    board, *about = [_state(flat) for flat in reply[1:]]
    return ShardBoard(int(cast(bytes, reply[0])), board, dict(zip(names, about, strict=True)))


def _state(flat: object) -> dict[str, int]:
    pairs = cast("list[bytes]", flat)
    return state_of(dict(zip(pairs[::2], pairs[1::2], strict=True)))
