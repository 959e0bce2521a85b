"""fit: from interactions to vectors of users and items, by the embedder that the settings name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts.candidates import Float32s
from infra.contracts.errors import DataRefused
from infra.snapshots.tables import UserProjection
from spark_jobs.embeddings import spectral
from spark_jobs.embeddings.spectral import Shape
from spark_jobs.embeddings.vectors import Factors, Size, matrix_of

Algorithm = Literal["spectral", "als"]


@dataclass(frozen=True, slots=True)
class Embedding:
    """Users and items in one space, where a larger inner product means a better match.

    item_vectors: float32 [n_items, d], row i is item i, zeros where nobody took the item.
    user_vectors: a frame of user_index int and vector array<float> of length 1, each of 0..n_users-1 once. Lazy. Columns
    that a caller adds are carried through retrieval.
    singular_values: float32 [d] falling; empty for ALS. d is dim, or less where there are fewer users or items.
    projection: from item vectors to a user's; None where vectors were read back, which nothing projects any more.
    """

    item_vectors: Float32s
    user_vectors: DataFrame
    n_users: int
    algorithm: str
    singular_values: Float32s
    projection: UserProjection | None = None

    @property
    def dim(self) -> int:
        """The vectors' length."""
        return int(self.item_vectors.shape[1])


def fit(
    spark: SparkSession,
    interactions: DataFrame,
    *,
    n_users: int,
    n_items: int,
    algorithm: Algorithm,
    dim: int,
    seed: int,
    shape: Shape | None = None,
) -> Embedding:
    """Embed interactions (user_index, item_index, maybe weight; repeats allowed), indexes below n_users and n_items.

    A user without interactions gets the mean of the others' vectors. Raises DataRefused where there is nothing to learn.
    """
    if "weight" not in interactions.columns:
        interactions = interactions.withColumn("weight", F.lit(1.0).cast("float"))
    n_events = interactions.count()
    if n_events == 0:
        raise DataRefused(
            "No event of the dataset says that a user wanted an item (clicks, purchases, ratings), so nothing can be learnt.",
            mend="Import events of other types than views, or map the type column: --map type=...",
        )
    size = Size(n_users, n_items, n_events)
    dim = min(dim, n_users, n_items)
    if algorithm == "als":
        from spark_jobs.embeddings import als  # MLlib takes 1.5 s to import

        factors = als.factorise(interactions, size=size, dim=dim, seed=seed)
    else:
        factors = spectral.factorise(spark, interactions, size=size, dim=dim, seed=seed, shape=shape or Shape())
    users = with_every_user(spark, factors, n_users=n_users)
    return Embedding(factors.item_vectors, users, n_users, algorithm, factors.singular_values, factors.projection)


def with_every_user(spark: SparkSession, factors: Factors, *, n_users: int) -> DataFrame:
    """Users without an interaction get the mean user's vector."""
    if len(factors.known_users) == n_users:
        return factors.user_vectors
    others = np.setdiff1d(np.arange(n_users, dtype=np.int32), factors.known_users)
    mean = F.array(*(F.lit(float(value)).cast("float") for value in factors.mean_user))
    rows = spark.createDataFrame(pa.table({"user_index": others})).withColumn("vector", mean)
    return factors.user_vectors.unionByName(rows)


def collect_vectors(users: DataFrame, *, n_users: int) -> Float32s:
    """The users' vectors on the driver, float32 [n_users, d]; for tests, samples and small data."""
    table: pa.Table = users.select("user_index", "vector").toArrow()
    rows = matrix_of(table["vector"])
    out = np.zeros((n_users, rows.shape[1]), np.float32)
    out[table["user_index"].to_numpy()] = rows
    return out
