"""breaking: stages of every kind that do what a test tells them to, well or badly."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.cascade.batch import Batch, Column, Outcome
from infra.cascade.kinds import Filter, Found, Hydrator, Removal, Scorer, Selector, SideEffect, Source, Stage
from infra.cascade.lane import Lane
from infra.contracts.candidates import Float32s

Query = dict[str, float]
Behaviour = Callable[[Batch], Awaitable[Any]]
"""What a stage does with the batch; its result goes to the runner as it is."""


def found(*ids: int, best: float = 10.0) -> Found:
    """Those candidates, best first."""
    return Found(np.array(ids, np.int32), best - np.arange(len(ids), dtype=np.float32))


class ASource(Source[Query]):
    def __init__(self, behaviour: Behaviour, name: str = "a source") -> None:
        self.name, self._behaviour = name, behaviour

    async def find(self, query: Query, batch: Batch) -> Found:
        return await self._behaviour(batch)


class AHydrator(Hydrator[Query]):
    def __init__(self, behaviour: Behaviour, name: str = "a hydrator") -> None:
        self.name, self._behaviour = name, behaviour

    async def hydrate(self, query: Query, batch: Batch) -> Mapping[str, Column]:
        return await self._behaviour(batch)


class AFilter(Filter[Query]):
    def __init__(self, behaviour: Behaviour, name: str = "a filter") -> None:
        self.name, self._behaviour = name, behaviour

    async def remove(self, query: Query, batch: Batch) -> list[Removal]:
        return await self._behaviour(batch)


class AScorer(Scorer[Query]):
    def __init__(self, behaviour: Behaviour, name: str = "a scorer") -> None:
        self.name, self._behaviour = name, behaviour

    async def score(self, query: Query, batch: Batch) -> Float32s:
        return await self._behaviour(batch)


class ASelector(Selector[Query]):
    def __init__(self, behaviour: Behaviour, name: str = "a selector") -> None:
        self.name, self._behaviour = name, behaviour

    async def select(self, query: Query, batch: Batch) -> NDArray[np.integer]:
        return await self._behaviour(batch)


class ASideEffect(SideEffect[Query]):
    def __init__(self, behaviour: Behaviour, name: str = "a side effect") -> None:
        self.name, self._behaviour = name, behaviour

    async def act(self, query: Query, outcome: Outcome) -> None:
        await self._behaviour(outcome.batch)


KINDS: Mapping[str, Callable[[Behaviour], Stage[Query]]] = {
    "source": ASource,
    "hydrator": AHydrator,
    "filter": AFilter,
    "scorer": AScorer,
    "selector": ASelector,
    "side effect": ASideEffect,
}


def gives(made: Any) -> Behaviour:
    """Always that; where it is a function, that of the batch."""

    async def behave(batch: Batch) -> Any:
        return made(batch) if callable(made) else made

    return behave


async def sleeps(batch: Batch) -> Any:
    """For ever."""
    await asyncio.Event().wait()


async def raises(batch: Batch) -> Any:
    """At once."""
    raise RuntimeError("the model is away")


def _but(good: object, **fields: object) -> object:
    return type(good)(**{name: fields.get(name, getattr(good, name)) for name in ("ids", "scores", "columns")})


WRONG: tuple[tuple[str, str, object], ...] = (
    ("source", "NaN", lambda batch: _but(found(21, 22), scores=np.array([1, np.nan], np.float32))),
    ("source", "wrong length", lambda batch: _but(found(21, 22), scores=np.array([1, 2, 3], np.float32))),
    ("source", "wrong dtype of ids", lambda batch: _but(found(21, 22), ids=np.array([21, 22]))),
    ("source", "wrong dtype of scores", lambda batch: _but(found(21, 22), scores=np.array([2.0, 1.0]))),
    ("source", "one twice", lambda batch: found(21, 22, 21)),
    ("source", "a short column", lambda batch: _but(found(21, 22), columns={"rank": np.arange(1)})),
    ("source", "nothing", None),
    ("hydrator", "wrong length", lambda batch: {"price": np.ones(len(batch) + 1)}),
    ("hydrator", "wrong dtype", lambda batch: {"price": 7}),
    ("hydrator", "nothing", None),
    ("filter", "wrong length", lambda batch: [Removal(np.ones(1, np.bool_), "w")]),
    ("filter", "wrong dtype", lambda batch: [Removal(np.ones(len(batch)), "w")]),  # type: ignore[arg-type]
    ("filter", "nothing", None),
    ("scorer", "NaN", lambda batch: np.full(len(batch), np.nan, np.float32)),
    ("scorer", "infinite", lambda batch: np.full(len(batch), np.inf, np.float32)),
    ("scorer", "wrong length", lambda batch: np.ones(len(batch) - 1, np.float32)),
    ("scorer", "wrong dtype", lambda batch: np.ones(len(batch))),
    ("scorer", "two columns", lambda batch: np.ones((len(batch), 2), np.float32)),
    ("scorer", "nothing", None),
    ("selector", "wrong length", lambda batch: np.arange(len(batch) + 1)),
    ("selector", "wrong dtype", lambda batch: np.linspace(0, 1, len(batch))),
    ("selector", "a mask", lambda batch: np.arange(len(batch)) < 1),
    ("selector", "one twice", lambda batch: np.zeros(len(batch), np.int64)),
    ("selector", "nothing", None),
)
"""By kind what breaks its promise, and how, as `gives` takes it."""


@dataclass
class Spinning:
    """A native call that runs in the lane until it is let go; nothing can stop it."""

    lane: Lane
    began: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, batch: Batch) -> Any:
        return await self.lane.run(lambda: self._spin(batch))

    def _spin(self, batch: Batch) -> Any:
        self.began.set()
        self.let_go.wait(60)
        self.ended.set()
        return np.full(len(batch), 99, np.float32)

    async def until_ended(self) -> None:
        """Let it go, and wait until the lane knows that it ended."""
        self.let_go.set()
        ends_s = time.monotonic() + 30
        while not self.lane.is_free:
            assert time.monotonic() < ends_s, "the lane never became free again"
            await asyncio.sleep(0.001)
