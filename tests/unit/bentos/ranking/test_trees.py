"""The ranker as a scorer: requests that wait for the native thread share its call, each to the bit as by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.query import RankingQuery
from bentos.ranking.stages import FEATURES
from bentos.ranking.trees import RankerScorer, predict
from infra.cascade.batch import Batch
from infra.cascade.lane import Lane, T
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.errors import DeadlineExceeded
from infra.resilience.deadline import Deadline


class CountingLane(Lane):
    """Counts the calls that went through it; is held while its gate is shut."""

    def __init__(self) -> None:
        super().__init__("trees")
        self.calls = 0
        self.gate = threading.Event()

    async def run(self, call: Callable[[], T]) -> T:
        self.calls += 1
        return await super().run(call)

    @contextmanager
    def held(self) -> Iterator[None]:
        """In the block's body the thread is taken."""
        taken = asyncio.ensure_future(super().run(lambda: self.gate.wait(30)))
        try:
            yield
        finally:
            self.gate.set()
        assert not taken.cancelled()


@pytest.fixture
def lane() -> Iterator[CountingLane]:
    made = CountingLane()
    yield made
    made.gate.set()
    made.close()


def asked(snapshot: RankingSnapshot, n: int, *, seed: int) -> tuple[RankingQuery, Batch]:
    features = np.random.default_rng(seed).random((n, len(RANKER_FEATURES))).astype(np.float32)
    query = RankingQuery(snapshot, f"u{seed}", n=10, session=[], excluded=np.empty(0, np.int32))
    ids = np.arange(n, dtype=np.int32)
    return query, Batch(ids, np.zeros(n, np.float32), np.zeros(n, np.uint8), {FEATURES: features})


async def test_requests_that_wait_share_a_native_call_and_get_the_bits_that_they_get_alone(
    snapshot: RankingSnapshot, lane: CountingLane
) -> None:
    scorer, ranker = RankerScorer(lane), snapshot.content.ranker
    pairs = [asked(snapshot, n, seed=n) for n in (1, 30, 64, 65, 300)]
    with lane.held():
        await asyncio.sleep(0)
        ahead = [asyncio.create_task(scorer.score(*asked(snapshot, 10, seed=seed))) for seed in (90, 91)]
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(scorer.score(*pair)) for pair in pairs]
        await asyncio.sleep(0)
    for (_, batch), scores in zip(pairs, await asyncio.gather(*tasks), strict=True):
        alone = predict(ranker, batch.columns[FEATURES].astype(np.float32, copy=False))
        assert scores.tobytes() == alone.tobytes()
    assert len(await ahead[0]) == len(await ahead[1]) == 10
    assert lane.calls == 3


async def test_a_request_whose_deadline_has_passed_in_the_queue_is_let_go(
    snapshot: RankingSnapshot, lane: CountingLane
) -> None:
    scorer = RankerScorer(lane)
    with lane.held():
        await asyncio.sleep(0)
        ahead = [asyncio.create_task(scorer.score(*asked(snapshot, 10, seed=seed))) for seed in (90, 91)]
        await asyncio.sleep(0)
        late = asyncio.create_task(scorer.score_by(*asked(snapshot, 5, seed=1), Deadline.after_ms(-1)))
        fine = asyncio.create_task(scorer.score_by(*asked(snapshot, 7, seed=2), Deadline.after_ms(60_000)))
        await asyncio.sleep(0)
    assert [len(await task) for task in (*ahead, fine)] == [10, 10, 7]
    with pytest.raises(DeadlineExceeded):
        await late
