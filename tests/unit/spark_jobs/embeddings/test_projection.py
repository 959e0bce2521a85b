"""What the embedder says of how item vectors make a user's: the same vector as its own, written and read back to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from infra.contracts.errors import ContractViolation, SnapshotCorrupt
from infra.snapshots.storage import Storage
from infra.snapshots.tables import ITEM_VECTORS, read_item_vectors
from spark_jobs.embeddings.fit import Algorithm, Embedding, collect_vectors, fit
from spark_jobs.embeddings.job import write_item_vectors
from spark_jobs.embeddings.spectral import Shape
from tests.fixtures.tiny_dataset import taste_events


def _fitted(
    spark: SparkSession, algorithm: Algorithm, shape: Shape | None = None
) -> tuple[Embedding, dict[int, set[int]]]:
    """Of 90 users and 40 items, the last of which nobody took; and what each user took."""
    events = taste_events(users=90, items=39, events=1500, seed=3)
    pairs = list(zip(events.user.tolist(), events.item.tolist(), strict=True))
    took: dict[int, set[int]] = {}
    for user, item in pairs:
        took.setdefault(user, set()).add(item)
    frame = spark.createDataFrame(pairs, "user_index int, item_index int")
    return fit(spark, frame, n_users=90, n_items=40, algorithm=algorithm, dim=12, seed=1, shape=shape), took


@pytest.mark.parametrize(
    "shape", [Shape(), Shape(item_power=0.5, item_lift=0.0, singular_power=0.5)], ids=["shipped", "another"]
)
def test_a_users_items_give_the_vector_that_the_spectral_embedder_gave_that_user(
    spark: SparkSession, shape: Shape
) -> None:
    embedding, took = _fitted(spark, "spectral", shape)
    assert embedding.projection is not None
    wanted = collect_vectors(embedding.user_vectors, n_users=90)
    for user, items in took.items():
        seen = embedding.projection.user(sorted(items), embedding.item_vectors)
        np.testing.assert_allclose(seen, wanted[user], atol=2e-5)
    plain = embedding.item_vectors[sorted(took[0])].sum(axis=0)
    assert abs(float(plain @ wanted[0]) / np.linalg.norm(plain)) < 0.99, "a plain sum would be another vector"


def test_a_users_items_give_a_direction_near_to_that_of_als(spark: SparkSession) -> None:
    embedding, took = _fitted(spark, "als")
    assert embedding.projection is not None
    users = collect_vectors(embedding.user_vectors, n_users=90)
    own = [float(embedding.projection.user(sorted(took[user]), embedding.item_vectors) @ users[user]) for user in took]
    others = [
        float(embedding.projection.user(sorted(took[user]), embedding.item_vectors) @ users[(user + 1) % 90])
        for user in took
    ]
    assert np.mean(own) > np.mean(others) + 0.2


def test_an_item_that_nobody_took_makes_no_vector(spark: SparkSession) -> None:
    embedding, _ = _fitted(spark, "spectral")
    assert embedding.projection is not None
    assert embedding.projection.weights[39] == 0
    assert not np.any(embedding.projection.user([39], embedding.item_vectors))


def test_vectors_and_projection_are_read_as_they_were_written(spark: SparkSession, tmp_path: Path) -> None:
    embedding, _ = _fitted(spark, "spectral")
    assert embedding.projection is not None
    storage = Storage(str(tmp_path))
    write_item_vectors(storage, embedding)
    found = read_item_vectors(storage, list(storage.files(ITEM_VECTORS)))
    assert found.projection is not None
    assert found.vectors.tobytes() == embedding.item_vectors.tobytes()
    assert found.projection.weights.tobytes() == embedding.projection.weights.tobytes()
    assert found.projection.scale.tobytes() == embedding.projection.scale.tobytes()


def test_an_embedding_that_was_read_back_is_not_written_again(spark: SparkSession, tmp_path: Path) -> None:
    embedding, _ = _fitted(spark, "spectral")
    bare = Embedding(embedding.item_vectors, embedding.user_vectors, 90, "spectral", embedding.singular_values)
    with pytest.raises(ContractViolation, match="without its projection"):
        write_item_vectors(Storage(str(tmp_path)), bare)


def test_files_that_hold_an_item_twice_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    embedding, _ = _fitted(spark, "spectral")
    storage = Storage(str(tmp_path))
    write_item_vectors(storage, embedding)
    (name,) = storage.files(ITEM_VECTORS)
    with pytest.raises(SnapshotCorrupt, match="not 0 to 79, each once"):
        read_item_vectors(storage, [name, name])
