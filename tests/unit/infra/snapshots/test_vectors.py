"""Products with a snapshot's vectors: those of a user who took some items alone, row by row, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from infra.catalog.features.ranking import ITEM_FEATURES, ItemColumns
from infra.contracts.candidates import ScoreMap
from infra.snapshots.vectors import TAKEN, VectorSearch, by_popularity
from tests.fixtures.tiny_snapshot import tiny_projection

ITEMS, DIM = 600, 24
NONE = np.empty(0, np.int32)


@pytest.fixture(scope="module")
def search() -> VectorSearch:
    vectors = np.random.default_rng(1).normal(size=(ITEMS, DIM)).astype(np.float32)
    return VectorSearch(vectors, tiny_projection(ITEMS, DIM), order=np.arange(ITEMS, dtype=np.int32))


def test_matches_are_the_products_with_all_recent_items_and_with_each(search: VectorSearch) -> None:
    items, recent = np.array([5, 17, 300, ITEMS, ITEMS + 9], np.int32), [7, 2, 400]
    found = search.matches(items, recent, each=5)
    assert found.shape == (5, 6) and found.dtype == np.float32
    vectors = np.random.default_rng(1).normal(size=(ITEMS, DIM)).astype(np.float32)
    for column, taken in enumerate((recent, [7], [2], [400])):
        np.testing.assert_allclose(found[:3, column], vectors[items[:3]] @ search.user(taken), rtol=1e-4, atol=1e-5)
    assert not found[3:].any(), "items newer than the snapshot have no vector"
    assert not found[:, 4:].any(), "there are three recent items"
    assert not search.matches(items, []).any()


def test_a_row_s_products_do_not_depend_on_the_others(search: VectorSearch) -> None:
    items = np.random.default_rng(2).permutation(ITEMS).astype(np.int32)
    whole = search.matches(items, [3, 9])
    for rows in (items[:1], items[7:8], items[100:], items[::7]):
        where = np.flatnonzero(np.isin(items, rows))
        assert search.matches(items[where], [3, 9]).tobytes() == whole[where].tobytes()


def test_fresh_items_are_the_best_without_the_hidden_ones(search: VectorSearch) -> None:
    hidden = np.array([3, 9, 11, 12], np.int32)
    ids, scores = search.fresh([3, 9], hidden=hidden, score_map=ScoreMap(0.5))
    products = search.matches(np.arange(ITEMS, dtype=np.int32), [3, 9])[:, 0]
    products[hidden] = -np.inf
    assert len(ids) == TAKEN and set(ids.tolist()) == set(np.argsort(-products)[:TAKEN].tolist())
    assert np.all(np.diff(scores.astype(np.float32)) <= 0)


def test_items_without_a_direction_bring_nothing() -> None:
    vectors = np.zeros((10, 4), np.float32)
    vectors[5:] = 1.0
    search = VectorSearch(vectors, tiny_projection(10, 4), order=np.arange(10, dtype=np.int32))
    ids, scores = search.fresh([0, 1], hidden=NONE, score_map=ScoreMap(1.0))
    assert len(ids) == len(scores) == 0


def test_every_item_stands_once_the_popular_ones_first() -> None:
    features = np.zeros((5, len(ITEM_FEATURES)), np.float32)
    features[:, ITEM_FEATURES.index("item_popularity_log")] = (1, 5, 3, 2, 4)
    columns = ItemColumns(features, np.zeros((5, 1), np.float32), np.zeros(5, np.int32))
    assert by_popularity(columns, np.array([3, 0], np.int32)).tolist() == [3, 0, 1, 4, 2]
