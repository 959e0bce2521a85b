"""Nothing of what comes after a cut can be seen before it: not in vectors, features, lists, nor in the catalogue."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.catalog.applications.ranking import RANKING
from infra.catalog.features.ranking import BATCH_FEATURES, RANKER_FEATURES, USER_FEATURES, ranker_matrix
from infra.contracts.candidates import UserRecord, pack, unpack
from infra.contracts.ids import DatasetId
from spark_jobs.candidates.retrieval import retrieve
from spark_jobs.embeddings.fit import collect_vectors
from spark_jobs.embeddings.source import read_source
from spark_jobs.training.examples import Examples, build
from spark_jobs.training.one_list import Sampling
from spark_jobs.training.past import Past, Recipe, past_of
from tests.fixtures.tiny_dataset import START, Events, write_dataset
from tests.unit.spark_jobs.training.conftest import CUT, ITEMS, USERS, K, Trained

_BATCH = len(BATCH_FEATURES)
_LENGTH = RANKER_FEATURES.index("session_length_log")

RECIPE = Recipe("spectral", 16, K, include_seen=False, seed=1)
ALL = Sampling(users=10_000, negatives=None, seed=1)


def _at_cut(spark: SparkSession, store: str) -> tuple[Past, DataFrame]:
    """The past as of CUT, and the events after it."""
    source = read_source(spark, store, RANKING.name, DatasetId("tiny"))
    before = source.events.where(F.col("event_time") < F.lit(CUT))
    after = source.events.where(F.col("event_time") >= F.lit(CUT))
    return past_of(spark, source, before, as_of=CUT, spec=RANKING, recipe=RECIPE), after


@pytest.fixture(scope="module")
def then(spark: SparkSession, trained: Trained) -> tuple[Past, DataFrame]:
    return _at_cut(spark, trained.store)


def _other_future(events: Events) -> Events:
    """The same until CUT; then other items, other users, other types."""
    rng = np.random.default_rng(9)
    late = events.seconds >= (CUT - START) / timedelta(seconds=1)
    item, user = events.item.copy(), events.user.copy()
    item[late] = rng.integers(0, ITEMS, late.sum())
    user[late] = rng.permutation(user[late])
    types = ["purchase" if is_late else kind for is_late, kind in zip(late, events.event_type, strict=True)]
    return Events(user, item, events.seconds, types)


def test_another_future_leaves_vectors_features_and_lists_as_they_are(
    spark: SparkSession, trained: Trained, then: tuple[Past, DataFrame], tmp_path: Path
) -> None:
    write_dataset(str(tmp_path), _other_future(trained.events), users=USERS, items=ITEMS)
    items = "ranking/datasets/tiny/items.parquet"  # the catalogue is not of the events' making
    shutil.copyfile(Path(trained.store, items), tmp_path / items)
    (one, after_one), (two, after_two) = then, _at_cut(spark, str(tmp_path))
    np.testing.assert_array_equal(one.embedding.item_vectors, two.embedding.item_vectors)
    vectors = [collect_vectors(past.embedding.user_vectors, n_users=USERS) for past in (one, two)]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert one.score_map == two.score_map
    np.testing.assert_array_equal(one.items.features, two.items.features)
    np.testing.assert_array_equal(one.popular, two.popular)
    people = [past.people().orderBy("user_index").collect() for past in (one, two)]
    assert people[0] == people[1]
    mine, other = (build(spark, p, a, spec=RANKING, sampling=ALL) for p, a in ((one, after_one), (two, after_two)))
    both = np.intersect1d(mine.users, other.users)
    assert len(both) > 50
    left, right = (found.where(np.isin(found.users, both)) for found in (mine, other))
    cold = [_cold(found) for found in (left, right)]
    alike = cold[0] & cold[1]
    assert alike.sum() > 10
    left, right = (found.where(alike) for found in (left, right))
    np.testing.assert_array_equal(left.matrix[:, :_BATCH], right.matrix[:, :_BATCH])
    assert not np.array_equal(left.grades, right.grades), "only the grades know the future"


def _cold(found: Examples) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Users whose moment comes before everything that they took in the window."""
    out: np.ndarray[tuple[int], np.dtype[np.bool_]] = found.matrix[found.starts[:-1], _LENGTH] == 0
    return out


def test_what_a_user_goes_on_to_take_is_in_no_history_and_no_seen_item_is_in_a_list(
    spark: SparkSession, trained: Trained, then: tuple[Past, DataFrame]
) -> None:
    past, after = then
    taken: dict[int, set[int]] = {}
    later: dict[int, set[int]] = {}
    limit = (CUT - START) / timedelta(seconds=1)
    for user, item, second in zip(trained.events.user, trained.events.item, trained.events.seconds, strict=True):
        (taken if second < limit else later).setdefault(int(user), set()).add(int(item))
    for row in past.people().collect():
        assert set(np.frombuffer(row.history, "<i4").tolist()) <= taken[row.user_index]
    made = build(spark, past, after, spec=RANKING, sampling=ALL)
    made = made.where(_cold(made))
    wanted = {user: items - taken.get(user, set()) for user, items in later.items() if user in taken}
    n_wanted = dict(zip(made.users.tolist(), made.n_wanted.tolist(), strict=True))
    assert len(n_wanted) > 50 and n_wanted == {user: len(wanted[user]) for user in n_wanted}
    lists, _ = retrieve(spark, past.embedding, past.consumed, k=K, score_map=past.score_map)
    listed = {row.user_index: np.frombuffer(row.item_indices, "<i4") for row in lists.collect()}
    for at, user in enumerate(made.users.tolist()):
        low, high = made.starts[at], made.starts[at + 1]
        graded = set(listed[user][past.existed[listed[user]]][made.grades[low:high] > 0].tolist())
        assert graded == set(listed[user].tolist()) & wanted[user]
        assert not graded & taken[user]


def test_training_computes_bit_for_bit_what_serving_computes_from_the_packed_record(
    spark: SparkSession, then: tuple[Past, DataFrame]
) -> None:
    past, after = then
    made: Examples = build(spark, past, after, spec=RANKING, sampling=ALL)
    made = made.where(_cold(made))
    joined = past.embedding.user_vectors.join(past.people(), "user_index")
    lists, _ = retrieve(
        spark,
        dataclasses.replace(past.embedding, user_vectors=joined),
        past.consumed,
        k=K,
        score_map=past.score_map,
    )
    rows = {row.user_index: row for row in lists.collect()}
    for at, user in enumerate(made.users.tolist()):
        row = rows[user]
        stored = UserRecord(
            np.frombuffer(row.item_indices, "<i4"),
            np.frombuffer(row.scores, "<f2"),
            np.frombuffer(row.features, "<f2"),
            np.frombuffer(row.history, "<i4"),
        )
        record = unpack(pack(stored))
        there = past.existed[record.item_indices]
        served = ranker_matrix(
            record.features,
            past.items,
            item_indices=record.item_indices[there],
            scores=record.scores[there].astype(np.float32),
            ranks=np.arange(int(there.sum()), dtype=np.int32),
            best_score=float(record.scores[there][0]),
            history=record.history,
        )
        mine = made.matrix[made.starts[at] : made.starts[at + 1]]
        assert mine[:, :_BATCH].tobytes() == served[:, :_BATCH].tobytes()
    assert len(record.features) == len(USER_FEATURES)


def test_an_item_that_comes_later_is_in_no_list_of_then(trained: Trained, then: tuple[Past, DataFrame]) -> None:
    past, _ = then
    late = {int(item) for item in np.flatnonzero(~past.existed)}
    limit = (CUT - START) / timedelta(seconds=1)
    first = {int(i): float(trained.events.seconds[trained.events.item == i].min()) for i in set(trained.events.item)}
    assert late == {item for item, second in first.items() if second > limit}
