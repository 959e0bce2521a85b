"""The light scorer and the network: applied where the snapshot has them and they earn their place, replayable to the bit."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bentos.ranking.content import RankingSnapshot, load_content
from bentos.ranking.features import STORED, moment_of
from bentos.ranking.light import is_sure
from bentos.ranking.network import NetworkScorer
from bentos.ranking.offline import Offline
from bentos.ranking.pipeline import steps_with
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import checked_record
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.sealed import SealedSnapshots, SealedUsers
from bentos.ranking.stages import FEATURES
from infra.cascade.batch import Batch, Outcome
from infra.cascade.runner import Cascade
from infra.catalog.features.ranking import LIGHT_FEATURES, RANKER_FEATURES, light_scores
from infra.contracts.candidates import Int32s
from infra.contracts.errors import DependencyUnavailable, SnapshotCorrupt
from infra.contracts.snapshots import StageInfo
from infra.nearline.decision_archive import read_decisions
from infra.resilience.deadline import Deadline
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.answers import HORIZON, NAME, town
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot

_LIGHT = [RANKER_FEATURES.index(name) for name in LIGHT_FEATURES]


class StoreReader:
    """Users as the store has them; the stream knows nothing of them."""

    def __init__(self, users: SealedUsers) -> None:
        self._users = users

    async def read(self, query: RankingQuery) -> None:
        payload = self._users.record(query.user_id)
        assert payload is not None
        query.learn(checked_record(payload, n_items=query.snapshot.content.n_items), None)

    async def older(self, query: RankingQuery) -> Int32s:
        return np.frombuffer(self._users.older(query.user_id), "<i4")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[RankingSnapshot, StoreReader]:
    root = str(tmp_path_factory.mktemp("staged"))
    version = build_tiny_snapshot(root, staged=True)
    snapshot, users = SealedSnapshots(SnapshotStore(root, RANKING)).get(version.version)
    users.look_up({"u3"})
    return snapshot, StoreReader(users)


async def ask(
    snapshot: RankingSnapshot, reader: StoreReader, *, failing: str = "", **context: object
) -> tuple[RankingQuery, Outcome]:
    """The whole cascade, with all the time that it needs; `failing`: a stage that has none."""
    steps = [
        replace(step, budget_ms=0 if step.stage.name == failing else None) for step in steps_with(reader, lane=None)
    ]
    request = RecommendRequest.model_validate({"user_id": "u3", "n": 50, "context": context})
    query = RankingQuery.of(request, snapshot)
    return query, await Cascade(steps).run(query, Deadline.after_ms(60_000))


def _with_stage(snapshot: RankingSnapshot, **stages: bool) -> RankingSnapshot:
    off = frozenset(name for name, on in stages.items() if not on)
    return replace(snapshot, content=replace(snapshot.content, off=off))


async def test_the_last_scorer_that_is_on_decides(staged: tuple[RankingSnapshot, StoreReader]) -> None:
    snapshot, reader = staged
    _, whole = await ask(snapshot, reader, recent_items=["i17", "i4"])
    assert (whole.decided_by, whole.degraded, whole.skipped) == ("network", False, {})
    assert {"matches", "light", "features", "ranker", "network"} <= whole.stage_ms.keys()
    _, without = await ask(_with_stage(snapshot, network=False, light=False), reader, recent_items=["i17", "i4"])
    assert (without.decided_by, without.degraded, without.skipped) == ("ranker", False, {})
    assert not {"light", "network"} & without.stage_ms.keys()
    assert whole.batch.ids.tolist() != without.batch.ids.tolist()


async def test_the_trees_see_the_same_features_whether_the_light_scorer_is_on(
    staged: tuple[RankingSnapshot, StoreReader],
) -> None:
    snapshot, reader = staged
    rows = []
    for light in (True, False):
        _, outcome = await ask(_with_stage(snapshot, light=light, network=False), reader, recent_items=["i17"])
        order = np.argsort(outcome.batch.ids)
        rows.append(outcome.batch.take(order))
    assert rows[0].ids.tolist() == rows[1].ids.tolist()
    assert rows[0].columns[FEATURES].tobytes() == rows[1].columns[FEATURES].tobytes()
    stored = rows[0].columns[FEATURES][:, RANKER_FEATURES.index("retrieval_score")]
    assert stored.tobytes() == rows[0].columns[STORED].tobytes()


async def test_the_light_score_is_the_weighted_sum_of_what_the_ranker_sees(
    staged: tuple[RankingSnapshot, StoreReader],
) -> None:
    snapshot, reader = staged
    _, outcome = await ask(snapshot, reader, failing="ranker", recent_items=["i17"])
    assert (outcome.decided_by, outcome.degraded) == ("light", True)
    features = outcome.batch.columns[FEATURES].astype(np.float32)
    wanted = light_scores(snapshot.content.light or (), [features[:, column] for column in _LIGHT])
    assert outcome.batch.scores.tobytes() == wanted.tobytes()
    assert "did not score" in outcome.skipped["network"], "nor does the network score without the trees"


async def test_where_the_light_scorer_is_sure_nothing_refines_its_order(
    staged: tuple[RankingSnapshot, StoreReader],
) -> None:
    snapshot, reader = staged
    peaked = replace(snapshot, content=replace(snapshot.content, light=(40.0, 20.0, 4.0)))
    query, outcome = await ask(peaked, reader, recent_items=["i17"])
    assert (outcome.decided_by, outcome.settled_by, outcome.degraded) == ("light", "light", False)
    assert set(outcome.skipped) == {"ranker", "network"} and is_sure(query, outcome.batch)
    _, flat = await ask(snapshot, reader, recent_items=["i17"])
    assert flat.settled_by == ""


async def test_a_short_list_is_no_reason_to_be_sure(staged: tuple[RankingSnapshot, StoreReader]) -> None:
    query, outcome = await ask(staged[0], staged[1])
    flat = Batch(np.arange(11, dtype=np.int32), np.zeros(11, np.float32), np.zeros(11, np.uint8))
    assert not is_sure(query, flat)
    assert outcome.settled_by == ""


async def test_the_network_refuses_rows_that_the_trees_have_not_scored(
    staged: tuple[RankingSnapshot, StoreReader],
) -> None:
    snapshot, reader = staged
    query, outcome = await ask(_with_stage(snapshot, light=False, network=False), reader)
    batch = outcome.batch
    scorer = NetworkScorer(None)
    assert np.all(np.isfinite(await scorer.score(query, batch)))
    before = Batch(batch.ids, batch.columns[STORED].astype(np.float32), batch.sources, batch.columns)
    with pytest.raises(DependencyUnavailable, match="did not score"):
        await scorer.score(query, before)


async def test_a_request_s_own_hour_and_device_are_features(staged: tuple[RankingSnapshot, StoreReader]) -> None:
    snapshot, reader = staged
    query, _ = await ask(snapshot, reader, hour=6, device="tv")
    assert (moment_of(query).hour, moment_of(query).device) == (6, "tv")
    silent, _ = await ask(snapshot, reader)
    assert moment_of(silent).hour == time.gmtime(silent.now_us / 1e6).tm_hour and moment_of(silent).device == ""


async def test_answers_of_all_scorers_are_made_again_to_the_bit(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        place.stage.put_live(build_tiny_snapshot(str(place.stage.root), generation=1, staged=True))
        await place.post([place.event("u3", "i7")])
        feed = place.recommender(place.client)
        for context in ({}, {"hour": 3, "device": "mobile"}, {"recent_items": ["i9", "i12"]}):
            await place.ask("u3", feed=feed, n=40, context=context)
        await place.archive_all()
        decisions = [entry.decision() for entry in read_decisions(place.archive)]
        again = Offline(str(place.stage.root), NAME, horizon=HORIZON)
        replayed = [await again.replay(decision) for decision in decisions]
    assert [one.decided_by for one in decisions] == ["network"] * 3
    assert [one.is_exact for one in replayed] == [True] * 3, [one.compared.differences for one in replayed]
    codes = {one.request.get("device"): one.features[0, RANKER_FEATURES.index("device_code")] for one in decisions}
    assert codes["mobile"] == 0 and np.isnan(codes[None])


def test_a_snapshot_whose_scorers_are_not_this_code_s_is_refused(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path), staged=True)
    manifest = version.manifest()

    def changed(name: str, **fields: object) -> None:
        stage: StageInfo = replace(manifest.stages[name], **fields)  # type: ignore[arg-type]
        load_content(version, replace(manifest, stages={**manifest.stages, name: stage}))

    with pytest.raises(SnapshotCorrupt, match="light takes"):
        changed("light", inputs=("one",))
    with pytest.raises(SnapshotCorrupt, match="weights of light"):
        changed("light", weights=(1.0,))
    with pytest.raises(SnapshotCorrupt, match="network takes"):
        changed("network", inputs=("one",))
