"""The two steps together, on a small generated world: complete, consistent with their inputs, and better than popularity."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from infra.catalog.applications.ranking import RANKING
from infra.catalog.features.ranking import ITEM_FEATURES, USER_FEATURES
from infra.contracts.candidates import Int32s, is_ordered
from infra.contracts.errors import DatasetNotFound, StepMissing
from infra.contracts.ids import DatasetId
from infra.snapshots import tables
from infra.snapshots.versions import SnapshotStore, StepOutput, Version
from spark_jobs.candidates.job import CandidateOptions, build_candidates
from spark_jobs.embeddings.job import EmbedOptions, embed, read_item_vectors
from spark_jobs.embeddings.source import read_source
from tests.fixtures.tiny_dataset import Events, taste_events, write_dataset

USERS, ITEMS, K = 300, 200, 60


@dataclass(frozen=True)
class Built:
    """A version with both steps done, and the events behind and after it."""

    version: Version
    embedded: StepOutput
    made: StepOutput
    past: Events
    everything: Events

    @property
    def candidates(self) -> pa.Table:
        """All records, by user."""
        storage = self.version.storage
        batches = tables.candidate_batches(storage, storage.files(f"{self.made.path}/candidates"))
        return pa.Table.from_batches(batches).sort_by("user_index")


@pytest.fixture(scope="module")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    store = str(tmp_path_factory.mktemp("store"))
    everything = taste_events(users=USERS, items=ITEMS, events=9000, seed=11)
    past = everything.head(0.85)
    write_dataset(store, past, users=USERS, items=ITEMS)
    version = SnapshotStore(store, RANKING.name).allocate(generation=0, actor="test")
    source = read_source(spark, store, RANKING.name, DatasetId("tiny"))
    embedded = embed(spark, version, source, spec=RANKING, options=EmbedOptions("spectral", 16, 1))
    made = build_candidates(spark, version, source, spec=RANKING, options=CandidateOptions(K, include_seen=False))
    return Built(version, embedded, made, past, everything)


def _consumed(events: Events) -> dict[int, set[int]]:
    taken: dict[int, set[int]] = defaultdict(set)
    for user, item in zip(events.user.tolist(), events.item.tolist(), strict=True):
        taken[user].add(item)
    return taken


def _lists(table: pa.Table) -> dict[int, Int32s]:
    packed = table["item_indices"].to_pylist()
    return {u: np.frombuffer(ids, "<i4") for u, ids in zip(table["user_index"].to_pylist(), packed, strict=True)}


def test_every_user_with_an_event_has_one_record_of_unseen_items_in_order(built: Built) -> None:
    table, taken = built.candidates, _consumed(built.past)
    assert table.schema == tables.CANDIDATES_SCHEMA
    assert table["user_index"].to_pylist() == sorted(taken)
    for row in table.to_pylist():
        ids, scores = (np.frombuffer(row["item_indices"], "<i4"), np.frombuffer(row["scores"], "<f2"))
        seen = taken[row["user_index"]]
        assert len(ids) == len(scores) == len(set(ids.tolist())) == min(K, ITEMS - len(seen))
        assert not seen & set(ids.tolist()) and is_ordered(ids, scores) and ids.max() < ITEMS
        assert len(np.frombuffer(row["features"], "<f2")) == len(USER_FEATURES)
        assert set(np.frombuffer(row["history"], "<i4").tolist()) <= seen
        assert row["user_id"] == f"u{row['user_index']}"


def test_candidates_are_exactly_the_nearest_unseen_items_by_the_written_vectors(built: Built) -> None:
    storage = built.version.storage.below(built.embedded.path)
    items = read_item_vectors(storage)
    vectors = pa.concat_tables([pq.read_table(storage.full(name)) for name in storage.files("user_vectors")])
    taken, lists = _consumed(built.past), _lists(built.candidates)
    for row in vectors.to_pylist():
        user = row["user_index"]
        if user not in lists:
            continue
        products = items @ np.array(row["vector"], np.float32)
        products[sorted(taken[user])] = -np.inf
        kth = np.sort(products)[::-1][len(lists[user]) - 1]
        assert products[lists[user]].min() >= kth - 1e-5


def test_candidates_recall_held_out_items_far_better_than_popularity(built: Built) -> None:
    taken = _consumed(built.past)
    storage = built.version.storage
    shown = tables.read_popular(storage, [f"{built.made.path}/popular.parquet"])["popular"][0].tolist()
    lists, hits, popular_hits, held = _lists(built.candidates), 0, 0, 0
    for user, items in _consumed(built.everything).items():
        new = items - taken[user]
        held += len(new)
        hits += len(new & set(lists.get(user, np.zeros(0, np.int32))[:20].tolist()))
        popular_hits += len(new & set([item for item in shown if item not in taken[user]][:20]))
    assert hits / held > 1.4 * popular_hits / held > 0


def test_the_item_table_and_the_popular_lists_read_back(built: Built) -> None:
    storage = built.version.storage
    items = tables.read_item_table(storage, [f"{built.made.path}/item_table.parquet"])
    assert items.item_ids == [f"i{item}" for item in range(ITEMS)]
    assert items.columns.features.shape == (ITEMS, len(ITEM_FEATURES))
    lists = tables.read_popular(storage, [f"{built.made.path}/popular.parquet"])
    assert sorted(lists["popular"][0].tolist()) == list(range(ITEMS)), "the whole catalogue, as it is short"
    assert 0 < len(lists["trending"][0]) <= ITEMS


def test_a_step_says_what_it_was_built_from_and_with(built: Built) -> None:
    assert built.embedded.parents == {"dataset": "tiny"}
    assert built.made.parents == {"embeddings": built.embedded.path, "dataset": "tiny"}
    assert built.embedded.figures["dim"] == 16 and built.embedded.figures["algorithm"] == "spectral"
    assert built.made.figures["users"] == len(_consumed(built.past))
    assert float(str(built.made.figures["score_scale"])) > 0


def test_seen_items_come_back_when_asked_for(spark: SparkSession, built: Built) -> None:
    store = built.version.storage.url.rsplit("/ranking/", 1)[0]
    source = read_source(spark, store, RANKING.name, DatasetId("tiny"))
    options = CandidateOptions(ITEMS, include_seen=True)
    made = build_candidates(spark, built.version, source, spec=RANKING, options=options)
    storage = built.version.storage
    batches = tables.candidate_batches(storage, storage.files(f"{made.path}/candidates"))
    for ids in pa.Table.from_batches(batches)["item_indices"].to_pylist():
        assert sorted(np.frombuffer(ids, "<i4").tolist()) == list(range(ITEMS))


def test_candidates_without_embeddings_name_the_command_to_run(
    spark: SparkSession, built: Built, tmp_path: Path
) -> None:
    store = built.version.storage.url.rsplit("/ranking/", 1)[0]
    source = read_source(spark, store, RANKING.name, DatasetId("tiny"))
    version = SnapshotStore(str(tmp_path), RANKING.name).allocate(generation=0, actor="test")
    with pytest.raises(StepMissing, match="python -m spark_jobs.embeddings"):
        build_candidates(spark, version, source, spec=RANKING, options=CandidateOptions(K, include_seen=False))
    with pytest.raises(DatasetNotFound, match="spark_jobs.ingest"):
        read_source(spark, store, RANKING.name, DatasetId("other"))


def _one_of_each(spark: SparkSession, store: str) -> tuple[Version, StepOutput]:
    """Both steps on one user who took the one item there is."""
    event = Events(np.array([0]), np.array([0]), np.array([5.0]), ["click"])
    write_dataset(store, event, users=1, items=1, files=1)
    version = SnapshotStore(store, RANKING.name).get("v1")
    source = read_source(spark, store, RANKING.name, DatasetId("tiny"))
    embed(spark, version, source, spec=RANKING, options=EmbedOptions("spectral", 128, 1))
    options = CandidateOptions(1000, include_seen=False)
    return version, build_candidates(spark, version, source, spec=RANKING, options=options)


@pytest.mark.parametrize("scheme", ["", "simplecache::file://"])
def test_the_smallest_world_is_built_on_a_disk_and_through_fsspec(
    spark: SparkSession, tmp_path: Path, scheme: str
) -> None:
    # Allocated on the disk: an object store needs no folder to begin with, this stand-in for one does.
    SnapshotStore(str(tmp_path), RANKING.name).allocate(generation=0, actor="test")
    version, made = _one_of_each(spark, f"{scheme}{tmp_path}")
    storage = version.storage
    assert storage.is_local == (scheme == "")
    batches = tables.candidate_batches(storage, storage.files(f"{made.path}/candidates"))
    rows = pa.Table.from_batches(batches).to_pylist()
    assert [(row["user_id"], row["item_indices"], row["scores"]) for row in rows] == [("u0", b"", b"")]
    assert np.frombuffer(rows[0]["history"], "<i4").tolist() == [0]
    popular = tables.read_popular(storage, [f"{made.path}/popular.parquet"])
    assert popular["popular"][0].tolist() == [0], "who has seen everything, or is unknown, is shown what is popular"
