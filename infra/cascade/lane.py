"""lane: one thread for native calls, so that the event loop stays free; who gives up waits no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from infra.contracts.errors import DependencyUnavailable

T = TypeVar("T")

ABANDONED, REFUSED = "lane_abandoned", "lane_refused"
"""What a lane tells: a call was given up while it ran; one was refused because of that."""


class LaneBusy(DependencyUnavailable):
    """A call that its caller has given up still runs; nothing is queued behind it."""


class Lane:
    """Runs calls one after another. A call that was given up before it began is dropped; one that runs cannot be stopped.

    So at most one abandoned call a lane runs at a time: until it ends, the lane refuses others, whose stages fall back at once. A
    worker has one lane for the answers of its requests; whatever else makes native calls (shadows, explanations) has its own.
    abandoned, refused: counted since it was made.
    """

    def __init__(self, name: str, *, tell: Callable[[str], None] | None = None) -> None:
        """tell: is called with ABANDONED or REFUSED at each of them."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._tell = tell
        self._left: Future[Any] | None = None
        self._queued = 0
        self.abandoned = 0
        self.refused = 0

    @property
    def is_free(self) -> bool:
        """Whether a call would begin at once."""
        return self._queued == 0 and not self._is_left

    @property
    def _is_left(self) -> bool:
        return self._left is not None and not self._left.done()

    async def run(self, call: Callable[[], T]) -> T:
        """Its result. Raises what it raises, and LaneBusy."""
        if self._is_left:
            self.refused += 1
            self._say(REFUSED)
            raise LaneBusy("The native thread is busy with a call that was given up.")
        future = self._pool.submit(call)
        self._queued += 1
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancelled() and not future.done():
                self._leave(future)
            raise
        finally:
            self._queued -= 1

    def close(self) -> None:
        """Let what runs end by itself; drop the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, future: Future[T]) -> None:
        self.abandoned += 1
        self._say(ABANDONED)
        self._left = future

    def _say(self, what: str) -> None:
        if self._tell is not None:
            self._tell(what)
