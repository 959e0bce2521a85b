"""A moment of the past has, bit for bit, the features that the service gives to a request at it; in a visit as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bentos.ranking.new_items import FeedBoard
from bentos.ranking.pipeline import steps_with
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import checked_record
from bentos.ranking.sealed import SealedSnapshots, SealedUsers
from bentos.ranking.sources import recent_items
from bentos.ranking.stages import FEATURES
from infra.cascade.runner import Cascade
from infra.catalog.features.ranking import LAST_ITEMS, RANKER_FEATURES, ItemColumns
from infra.contracts.candidates import Int32s, ScoreMap, UserRecord
from infra.contracts.events import Record
from infra.contracts.features import Deltas
from infra.nearline.pending import Seen
from infra.resilience.deadline import Deadline
from infra.snapshots.versions import SnapshotStore
from spark_jobs.training.moments import PLAN, Crowd, Lived, asked_by
from spark_jobs.training.one_list import Known, Listed, Sampling, example
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, tiny_projection, tiny_world
from tests.unit.spark_jobs.training.test_moments import CUT_US, MINUTE_US, lived

ITEMS, USER = 300, 3


class _Then:
    """What was known of the user at a moment."""

    def __init__(self, users: SealedUsers, visit: Lived, at_us: int) -> None:
        self._users = users
        self._visit = visit
        self._at_us = at_us

    async def read(self, query: RankingQuery) -> None:
        columns = (self._visit.times_us.tolist(), self._visit.items.tolist(), self._visit.types)
        rows = [row for row in zip(*columns, strict=True) if row[0] < self._at_us]
        records = [
            Record("user", query.user_id, what, at_us, "", {"user_id": query.user_id, "item_id": f"i{item}"})
            for at_us, item, what in rows
        ]
        deltas: Deltas = {}
        PLAN.accumulate(records, deltas)
        state = deltas.get(("user", query.user_id), {})
        query.learn(self._record(query), Seen("user", query.user_id, state, 1, (), True, (), ()))

    def _record(self, query: RankingQuery) -> UserRecord:
        payload = self._users.record(query.user_id)
        assert payload is not None
        return checked_record(payload, n_items=query.snapshot.content.n_items)

    async def older(self, query: RankingQuery) -> Int32s:
        return np.frombuffer(self._users.older(query.user_id), "<i4")


async def test_training_and_serving_make_the_same_of_a_moment_in_a_visit(tmp_path: Path) -> None:
    version, world = build_tiny_snapshot(str(tmp_path), staged=True), tiny_world()
    snapshot, users = SealedSnapshots(SnapshotStore(str(tmp_path), RANKING)).get(version.version)
    users.look_up({f"u{USER}"})
    record = checked_record(users.record(f"u{USER}") or b"", n_items=ITEMS)
    content = snapshot.content
    taken = np.sort(world.histories[USER])
    first, second, third, last = (int(record.item_indices[at]) for at in (1, 30, 60, 90))
    visit = lived(
        (600, first, "click"),
        (601, first, "purchase"),
        (602, second, "click"),
        (610, third, "click"),
        (611, last, "click"),
    )
    others = np.array([int(record.item_indices[at]) for at in (5, 5, 5, 5, 8, 8)], np.int32)
    crowd = Crowd(np.full(6, CUT_US + 590 * MINUTE_US, np.int64), others)
    columns = content.items.columns
    known = Known(
        items=ItemColumns(columns.features[:ITEMS], columns.genres[:ITEMS], columns.creators[:ITEMS]),
        existed=np.ones(ITEMS, np.bool_),
        popular=content.popular,
        crowd=crowd,
        item_vectors=world.item_vectors,
        projection=tiny_projection(ITEMS, 8),
        score_map=ScoreMap(snapshot.manifest.score_scale),
        include_seen=False,
    )
    warm = next(at for at in range(100) if _moment(at, visit, taken, crowd) == CUT_US + 611 * MINUTE_US)
    listed = Listed(warm, record.item_indices, record.scores, record.features, record.history, taken, visit)
    made = example(listed, known, known.search(), Sampling(1, None, 1))
    assert made is not None and made["n_wanted"] == 1
    mine = np.frombuffer(made["features"], "<f4").reshape(-1, len(RANKER_FEATURES))  # type: ignore[call-overload]

    at_us = CUT_US + 611 * MINUTE_US
    trending, counts = crowd.board(at_us)
    query = RankingQuery(
        snapshot,
        f"u{USER}",
        n=300,
        session=[],
        excluded=np.empty(0, np.int32),
        now_us=at_us,
        board=FeedBoard(trending=trending, trending_counts=counts),
    )
    steps = [replace(step, budget_ms=None, head=None) for step in steps_with(_Then(users, visit, at_us), lane=None)]
    steps = steps[: next(at for at, step in enumerate(steps) if step.stage.name == "features") + 1]
    outcome = await Cascade(steps).run(query, Deadline.after_ms(60_000))
    served = outcome.batch.columns[FEATURES].astype(np.float32)
    assert recent_items(query) == [third, second, first]
    assert outcome.batch.scores.any() and outcome.batch.sources.max() > 0, "fresh candidates are among them"
    assert len(mine) == len(served) > 200
    assert mine.tobytes() == served.tobytes()
    for name in ("clicks_last_hour_log", "purchases_last_hour_log", "recent_match", "item_trending_log", "hour_sin"):
        assert mine[:, RANKER_FEATURES.index(name)].any(), name
    assert content.vectors is not None
    products = content.vectors.matches(outcome.batch.ids, recent_items(query), each=LAST_ITEMS)[:, 1:]
    assert made["products"] == products.tobytes()


def _moment(user: int, visit: Lived, taken: Int32s, crowd: Crowd) -> int:
    asked = asked_by(user, visit, taken=taken, crowd=crowd, seed=1)
    assert asked is not None
    return asked.at_us
