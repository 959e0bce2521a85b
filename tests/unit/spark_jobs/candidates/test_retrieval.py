"""Retrieval is exact search: the same lists as brute force, in the stored order, for every user once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from infra.contracts.candidates import Float32s, ScoreMap, is_ordered
from spark_jobs.candidates import retrieval
from spark_jobs.candidates.retrieval import fit_score_map, retrieve, scale_of, search, unseen_lists
from spark_jobs.embeddings.fit import Embedding

EMPTY = np.zeros(0, np.float32)


def _brute_force(
    users: Float32s, items: Float32s, seen: list[list[int]], *, k: int, score_map: ScoreMap
) -> list[tuple[list[int], list[float]]]:
    """One user and one item at a time."""
    lists = []
    for user, gone in zip(users, seen, strict=True):
        rows = [
            (float(user.astype(np.float64) @ item.astype(np.float64)), at)
            for at, item in enumerate(items)
            if at not in gone
        ]
        best = sorted(rows, key=lambda row: (-row[0], row[1]))[:k]
        indices, scores = score_map.ordered(
            np.array([at for _, at in best], np.int64), np.array([product for product, _ in best], np.float32)
        )
        lists.append((indices.tolist(), scores.tolist()))
    return lists


def _whole_numbers(rng: np.random.Generator, *shape: int) -> Float32s:
    """Vectors whose inner products are exact in float32, so that equality may be asked for."""
    return rng.integers(-400, 401, shape).astype(np.float32)


@pytest.mark.parametrize("k", [1, 10, 60, 200, 5000])
@pytest.mark.parametrize("found_values", [1, 900, 1 << 22])
def test_lists_equal_brute_force_exactly(k: int, found_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "FOUND_VALUES", found_values)
    rng = np.random.default_rng(k)
    users, items = _whole_numbers(rng, 150, 7), _whole_numbers(rng, 200, 7)
    seen = [rng.choice(200, int(rng.choice([0, 3, 70, 130, 200])), replace=False).tolist() for _ in range(150)]
    score_map = ScoreMap(scale_of(search(users, items, k=min(k, 200))[0]))
    indices, scores, counts = unseen_lists(
        users,
        items,
        seen=np.array([item for gone in seen for item in gone], np.int32),
        seen_counts=np.array([len(gone) for gone in seen]),
        k=k,
        score_map=score_map,
    )
    for row, (wanted_items, wanted_scores) in enumerate(_brute_force(users, items, seen, k=k, score_map=score_map)):
        n = counts[row]
        assert n == min(k, 200 - len(seen[row]))
        np.testing.assert_allclose(scores[row, :n], wanted_scores, rtol=2e-3)
        assert is_ordered(indices[row, :n], scores[row, :n])
        assert set(indices[row, :n].tolist()) == set(wanted_items)
        assert indices[row, :n].tolist() == wanted_items


def test_a_user_who_has_seen_fifty_thousand_items_is_searched_with_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []

    def watched(queries: Float32s, items: Float32s, *, k: int) -> tuple[Float32s, NDArray[np.int64]]:
        widths.append((len(queries), k))
        return search(queries, items, k=k)

    monkeypatch.setattr(retrieval, "search", watched)
    rng = np.random.default_rng(3)
    users, items = _whole_numbers(rng, 40, 3), _whole_numbers(rng, 60_000, 3)
    gone = rng.permutation(60_000)[:50_000].astype(np.int32)
    counts = np.array([50_000] + [0] * 39)
    indices, _, found = unseen_lists(users, items, seen=gone, seen_counts=counts, k=100, score_map=ScoreMap(1e4))
    assert sorted(widths) == [(1, 50_100), (39, 100)]
    assert found.tolist() == [100] * 40 and not np.isin(indices[0], gone).any()
    left = np.setdiff1d(np.arange(60_000), gone)
    best = np.sort(items[left] @ users[0])[-100:]
    np.testing.assert_array_equal(np.sort(items[indices[0]] @ users[0]), best)


def test_an_item_whose_vector_is_not_a_number_is_in_no_list() -> None:
    rng = np.random.default_rng(4)
    users, items = _whole_numbers(rng, 30, 4), _whole_numbers(rng, 50, 4)
    items[7] = np.nan
    nobody = np.zeros(30, np.int64)
    indices, scores, counts = unseen_lists(
        users, items, seen=np.zeros(0, np.int32), seen_counts=nobody, k=50, score_map=ScoreMap(100.0)
    )
    for row, n in enumerate(counts):
        assert 7 not in indices[row, :n] and n == 49 and np.all(np.isfinite(scores[row, :n]))


def _embedding(spark: SparkSession, users: Float32s, items: Float32s) -> Embedding:
    rows = [(at, f"name {at}", vector.tolist()) for at, vector in enumerate(users)]
    frame = spark.createDataFrame(rows, "user_index int, name string, vector array<float>")
    return Embedding(items, frame, len(users), "test", EMPTY)


def test_spark_gives_each_user_one_packed_row_even_when_all_is_seen(spark: SparkSession) -> None:
    rng = np.random.default_rng(9)
    users, items = _whole_numbers(rng, 700, 5), _whole_numbers(rng, 90, 5)
    seen = [list(range(90)) if user == 3 else rng.choice(90, user % 5, replace=False).tolist() for user in range(700)]
    rows = [(user, int(item)) for user, gone in enumerate(seen) for item in gone for _ in range(2)]
    consumed = spark.createDataFrame(rows, "user_index int, item_index int")
    lists, score_map = retrieve(spark, _embedding(spark, users, items), consumed, k=30)
    table = lists.toArrow().sort_by("user_index")
    assert table["user_index"].to_pylist() == list(range(700))
    assert table["name"].to_pylist() == [f"name {user}" for user in range(700)]
    wanted = _brute_force(users, items, seen, k=30, score_map=score_map)
    for user, (ids, scores) in enumerate(
        zip(table["item_indices"].to_pylist(), table["scores"].to_pylist(), strict=True)
    ):
        assert np.frombuffer(ids, "<i4").tolist() == wanted[user][0]
        assert len(np.frombuffer(scores, "<f2")) == len(wanted[user][0])
    assert table["item_indices"][3].as_py() == b""
    assert [np.frombuffer(gone, "<i4").tolist() for gone in table["consumed"].to_pylist()] == [sorted(x) for x in seen]


def test_without_seen_items_everything_is_retrieved(spark: SparkSession) -> None:
    rng = np.random.default_rng(2)
    users, items = _whole_numbers(rng, 4, 3), _whole_numbers(rng, 8, 3)
    lists, _ = retrieve(spark, _embedding(spark, users, items), None, k=1000)
    for ids in lists.toArrow()["item_indices"].to_pylist():
        assert sorted(np.frombuffer(ids, "<i4").tolist()) == list(range(8))


def test_a_score_map_keeps_almost_all_scores_of_a_list_apart(spark: SparkSession) -> None:
    rng = np.random.default_rng(5)
    users, items = (rng.normal(size=(300, 16)).astype(np.float32), rng.normal(size=(5000, 16)).astype(np.float32))
    score_map = fit_score_map(_embedding(spark, users, items).user_vectors, items, k=500)
    stored = score_map.stored(search(users, items, k=500)[0])
    assert np.mean(stored[:, 1:] == stored[:, :-1]) < 0.35
    assert np.all(stored > 0) and np.all(np.isfinite(stored))


@pytest.mark.parametrize("products", [np.zeros((3, 4)), np.zeros((0, 4)), np.full((2, 2), -3.0), np.full((2, 2), 1e30)])
def test_any_inner_products_have_a_scale(products: np.ndarray) -> None:
    stored = ScoreMap(scale_of(products.astype(np.float32))).stored(products.astype(np.float32))
    assert np.all(np.isfinite(stored)) and np.all(stored >= 0)
