"""Two operators at once, in every order of their steps: one history, no generation twice, and the loser is told."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from infra.contracts.errors import FlipFenced, HeadgateError
from infra.contracts.snapshots import Alias, State
from infra.snapshots.promotion import Promotion
from tests.fixtures.service import Stage
from tests.unit.infra.snapshots.scenes import ALL, STEPS, go, now, path, ready, remember, remembered, states

_LIVE_BEFORE = 2
"""The generation of what is live before two publishers race."""


@dataclass
class Publisher:
    """A flip in a thread of its own that waits before every step until it is let go."""

    stage: Stage
    action: Callable[[Promotion], object]
    outcome: BaseException | object = None
    _may: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _waits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ended: bool = False

    def start(self) -> None:
        promotion = self.stage.promotion
        for step in ("look", *STEPS):
            setattr(promotion.flips, step, self._gated(getattr(promotion.flips, step)))
        self._thread = threading.Thread(target=self._run, args=(promotion,), daemon=True)
        self._thread.start()
        assert self._waits.acquire(timeout=60)

    def step(self) -> None:
        """Let it go on to its next step; returns once it waits there, or has ended."""
        if not self.ended:
            self._may.release()
            assert self._waits.acquire(timeout=60)

    def _run(self, promotion: Promotion) -> None:
        try:
            self.outcome = self.action(promotion)
        except HeadgateError as error:
            self.outcome = error
        self.ended = True
        self._waits.release()

    def _gated(self, step: Callable[..., object]) -> Callable[..., object]:
        def gated(*args: Any, **named: Any) -> object:
            if step.__name__ == "settle" and args[0].generation == _LIVE_BEFORE:
                return step(*args, **named)  # what was settled long ago: nothing happens
            self._waits.release()
            assert self._may.acquire(timeout=60)
            return step(*args, **named)

        return gated


def schedules() -> list[str]:
    """Every order of the four steps (look, journal, apply, settle) of each of two."""
    return ["".join("a" if at in chosen else "b" for at in range(8)) for chosen in combinations(range(8), 4)]


def race(stage: Stage, order: str, **actions: Callable[[Promotion], object]) -> dict[str, object]:
    publishers = {name: Publisher(stage, action) for name, action in actions.items()}
    for publisher in publishers.values():
        publisher.start()
    for name in order:
        publishers[name].step()
    for publisher in publishers.values():
        while not publisher.ended:
            publisher.step()
    return {name: publisher.outcome for name, publisher in publishers.items()}


def require_one_history(stage: Stage) -> None:
    """What the journal and the alias must say whatever happened."""
    standing = stage.promotion.flips.recover()
    assert standing.applied and standing.tip is not None
    told = list(stage.promotion.flips.journal.newest(100))
    assert [record.generation for record, _ in told] == list(range(len(told), 0, -1)), "no gap, no generation twice"
    live = [name for name, state in states(stage).items() if state is State.LIVE]
    assert live == [standing.tip.target.version]


@pytest.fixture
def fresh(stage: Stage) -> Callable[[], None]:
    """Brings the scene back: v1, v2 live, v3 and v4 ready."""
    go(stage, "v1", "v2")
    ready(stage, "v3", "v4")
    ranking, saved, row = stage.root / "ranking", stage.root.with_name("saved"), remembered(stage)
    changing = [Path("journal"), *(Path("snapshots", name, "states") for name in stage.promotion.store.versions())]
    for folder in changing:
        shutil.copytree(ranking / folder, saved / folder)

    def restore() -> None:
        for folder in changing:
            shutil.rmtree(ranking / folder)
            shutil.copytree(saved / folder, ranking / folder)
        remember(stage, row)

    return restore


def test_of_two_builds_in_all_interleavings_of_their_steps_one_goes_live_and_one_is_fenced(
    stage: Stage, fresh: Callable[[], None]
) -> None:
    def flip(name: str) -> Callable[[Promotion], Alias]:
        return lambda promotion: promotion.flip(promotion.store.get(name), actor=name, reason="r")

    for order in schedules():
        fresh()
        outcomes = race(stage, order, a=flip("v3"), b=flip("v4"))
        won = [name for name, outcome in outcomes.items() if isinstance(outcome, Alias)]
        lost = [outcome for outcome in outcomes.values() if isinstance(outcome, FlipFenced)]
        assert (len(won), len(lost)) == (1, 1), (order, outcomes)
        assert now(stage) == ({"a": "v3", "b": "v4"}[won[0]], 3), order
        require_one_history(stage)


def test_a_rollback_and_a_build_in_all_interleavings_leave_one_history(stage: Stage, fresh: Callable[[], None]) -> None:
    for order in schedules():
        fresh()
        outcomes = race(
            stage,
            order,
            a=lambda promotion: promotion.flip(promotion.store.get("v3"), actor="build", reason="r"),
            b=lambda promotion: promotion.rollback(None, actor="on call", reason="r", limit_fraction=ALL)[1],
        )
        assert all(isinstance(outcome, Alias | FlipFenced) for outcome in outcomes.values()), (order, outcomes)
        assert any(isinstance(outcome, Alias) for outcome in outcomes.values()), order
        assert path(stage) in (["v1"], ["v1", "v2"], ["v1", "v2", "v3"]), order
        require_one_history(stage)
