"""als: MLlib's implicit alternating least squares, beside the spectral embedder and behind the same interface."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from infra.contracts.candidates import Float32s
from infra.snapshots.tables import UserProjection
from spark_jobs.embeddings.vectors import Factors, Size, matrix_of, unit, user_batch


@dataclass(frozen=True, slots=True)
class AlsShape:
    """Hu, Koren and Volinsky 2008: confidence 1 + alpha * weight; regularisation scaled by a row's observations."""

    alpha: float = 20.0
    regularisation: float = 0.1
    iterations: int = 10


def factorise(interactions: DataFrame, *, size: Size, dim: int, seed: int, shape: AlsShape | None = None) -> Factors:
    """Item vectors are zeros where an item has no interaction; users are scaled to length 1.

    The projection is the plain mean of item vectors: an approximation, for a user of ALS is the solution of a system of equations.
    """
    shape = shape or AlsShape()
    pairs = interactions.groupBy("user_index", "item_index").agg(F.count("*").cast("float").alias("weight"))
    model = ALS(
        rank=dim,
        maxIter=shape.iterations,
        regParam=shape.regularisation,
        alpha=shape.alpha,
        implicitPrefs=True,
        userCol="user_index",
        itemCol="item_index",
        ratingCol="weight",
        seed=seed,
        intermediateStorageLevel="MEMORY_AND_DISK",
    ).fit(pairs)
    items = model.itemFactors.toArrow()
    vectors = np.zeros((size.items, dim), np.float32)
    vectors[items["id"].to_numpy()] = matrix_of(items["features"])
    sums = model.userFactors.mapInArrow(_sum_of_units, "total array<double>").toArrow()
    mean_user = unit(matrix_of(sums["total"]).sum(axis=0, keepdims=True, dtype=np.float32))[0]
    known = np.sort(model.userFactors.select("id").toArrow()["id"].to_numpy())
    as_users = functools.partial(_as_users, mean_user)
    users = model.userFactors.mapInArrow(as_users, "user_index int, vector array<float>")
    projection = UserProjection(np.ones(size.items, np.float32), np.ones(dim, np.float32))
    return Factors(vectors, users, known, mean_user, np.zeros(0, np.float32), projection)


def _sum_of_units(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            total = unit(matrix_of(batch.column("features"))).sum(axis=0, dtype=np.float64)
            yield pa.RecordBatch.from_arrays([pa.array([total.tolist()], pa.list_(pa.float64()))], ["total"])


def _as_users(mean_user: Float32s, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            users, rows = (batch.column("id").to_numpy(), matrix_of(batch.column("features")))
            yield user_batch(users, rows, mean_user=mean_user)
