"""Both embedders find the tastes behind the data, for any shape of it, and the same vectors every time."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy import sparse

from infra.contracts.candidates import Float32s
from infra.contracts.errors import DataRefused
from spark_jobs.embeddings.fit import Algorithm, collect_vectors, fit
from spark_jobs.embeddings.spectral import Shape
from tests.fixtures.tiny_dataset import Events, taste_events


def _frame(spark: SparkSession, pairs: list[tuple[int, int]]) -> DataFrame:
    return spark.createDataFrame(pairs, "user_index int, item_index int")


def _pairs(events: Events) -> list[tuple[int, int]]:
    return list(zip(events.user.tolist(), events.item.tolist(), strict=True))


def _naive(pairs: list[tuple[int, int]], *, n_users: int, n_items: int, dim: int, shape: Shape) -> Float32s:
    """All users' scores of all items by a dense SVD, float64 [n_users, n_items]; users of length 1."""
    matrix = np.zeros((n_users, n_items))
    for user, item in pairs:
        matrix[user, item] = 1
    d_u, d_i = matrix.sum(axis=1), matrix.sum(axis=0)
    scaled_i = np.where(d_i > 0, np.maximum(d_i, 1) ** -shape.item_power, 0)
    normal = d_u[:, None] ** -shape.user_power * matrix * scaled_i
    _, singular, right = np.linalg.svd(normal, full_matrices=False)
    basis = right[:dim].T
    users = normal @ basis
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    items = basis * singular[:dim] ** shape.singular_power * (d_i**shape.item_lift)[:, None]
    scores: Float32s = (users @ items.T).astype(np.float32)
    return scores


def test_the_distributed_spectral_embedder_agrees_with_a_dense_svd(spark: SparkSession) -> None:
    pairs = _pairs(taste_events(users=90, items=40, events=1500, seed=3))
    embedding = fit(spark, _frame(spark, pairs), n_users=90, n_items=40, algorithm="spectral", dim=12, seed=1)
    scores = collect_vectors(embedding.user_vectors, n_users=90) @ embedding.item_vectors.T
    wanted = _naive(pairs, n_users=90, n_items=40, dim=12, shape=Shape())
    np.testing.assert_allclose(scores, wanted, atol=2e-3 * np.abs(wanted).max())
    assert np.all(np.diff(embedding.singular_values) <= 0)


@pytest.mark.parametrize("algorithm", ["spectral", "als"])
def test_an_embedder_finds_held_out_items_far_better_than_popularity(spark: SparkSession, algorithm: Algorithm) -> None:
    events = taste_events(users=400, items=300, events=14_000, seed=4)
    past, held = (_pairs(events.head(0.85)), set(_pairs(events)) - set(_pairs(events.head(0.85))))
    embedding = fit(spark, _frame(spark, past), n_users=400, n_items=300, algorithm=algorithm, dim=16, seed=1)
    scores = collect_vectors(embedding.user_vectors, n_users=400) @ embedding.item_vectors.T
    seen = sparse.csr_matrix((np.ones(len(past)), tuple(zip(*past, strict=True))), shape=(400, 300)).toarray() > 0
    popularity = np.broadcast_to(seen.sum(axis=0), scores.shape).astype(np.float32)
    assert _recall(scores, seen, held, k=20) > 1.3 * _recall(popularity, seen, held, k=20)


def _recall(scores: Float32s, seen: np.ndarray, held: set[tuple[int, int]], *, k: int) -> float:
    top = np.argsort(-np.where(seen, -np.inf, scores), axis=1)[:, :k]
    hits = sum(item in top[user] for user, item in held)
    return hits / len(held)


@pytest.mark.parametrize(
    ("algorithm", "pairs", "n_users", "n_items"),
    [
        ("spectral", [(0, 0)], 1, 1),
        ("spectral", [(2, 5)], 5, 8),
        ("spectral", [(0, 1), (1, 1), (2, 7), (4, 0), (4, 1), (4, 1), (4, 1)], 5, 8),
        ("spectral", [(user, 3) for user in range(5)], 5, 8),
        ("spectral", [(0, item) for item in range(8)], 5, 8),
        ("als", [(0, 0)], 1, 1),
        ("als", [(0, 1), (1, 1), (2, 7), (4, 0), (4, 1), (4, 1), (4, 1)], 5, 8),
    ],
)
def test_tiny_data_gives_every_user_a_finite_unit_vector(
    spark: SparkSession, algorithm: Algorithm, pairs: list[tuple[int, int]], n_users: int, n_items: int
) -> None:
    frame = _frame(spark, pairs)
    embedding = fit(spark, frame, n_users=n_users, n_items=n_items, algorithm=algorithm, dim=128, seed=1)
    users = embedding.user_vectors.toArrow()
    assert sorted(users["user_index"].to_pylist()) == list(range(n_users))
    vectors = collect_vectors(embedding.user_vectors, n_users=n_users)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert embedding.item_vectors.shape == (n_items, embedding.dim) and embedding.dim <= min(n_users, n_items)
    assert np.all(np.isfinite(embedding.item_vectors))
    untouched = sorted(set(range(n_items)) - {item for _, item in pairs})
    assert not np.any(embedding.item_vectors[untouched])


def test_equal_data_and_seed_give_equal_bytes(spark: SparkSession) -> None:
    pairs = _pairs(taste_events(users=60, items=30, events=600, seed=5))
    one = fit(spark, _frame(spark, pairs), n_users=60, n_items=30, algorithm="spectral", dim=8, seed=7)
    other = _frame(spark, pairs[::-1]).repartition(7)
    two = fit(spark, other, n_users=60, n_items=30, algorithm="spectral", dim=8, seed=7)
    assert one.item_vectors.tobytes() == two.item_vectors.tobytes()


def test_nothing_to_learn_from_is_refused_with_a_mend(spark: SparkSession) -> None:
    empty = spark.createDataFrame([], "user_index int, item_index int")
    with pytest.raises(DataRefused, match="Import events of other types"):
        fit(spark, empty, n_users=3, n_items=3, algorithm="spectral", dim=8, seed=1)
