"""spectral: the degree-normalised truncated SVD of the interaction matrix, computed over user blocks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from scipy import sparse

from infra.contracts.candidates import Float32s
from infra.snapshots.tables import UserProjection
from spark_jobs.embeddings import blocks
from spark_jobs.embeddings.blocks import Block
from spark_jobs.embeddings.vectors import Factors, Size, unit, user_batch

OVERSAMPLING = 32
POWER_ITERATIONS = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """The exponents of the model; docs/adr/0005-spectral-embedder.md says how they were chosen.

    user_power, item_power: A = Du^-user_power R Di^-item_power. item_lift: retrieval multiplies an item by d_i^item_lift.
    singular_power: and by its singular values to this power. binary: R says whether, not how much or how often.
    """

    binary: bool = True
    user_power: float = 0.3
    item_power: float = 0.4
    item_lift: float = 0.25
    singular_power: float = 1.0


def factorise(
    spark: SparkSession, interactions: DataFrame, *, size: Size, dim: int, seed: int, shape: Shape
) -> Factors:
    """Randomised SVD of A (Halko, Martinsson and Tropp 2011): power iterations with QR on the driver, then Rayleigh-Ritz.

    With A ~ U S V' an item is V_i s^singular_power d_i^item_lift and a user is A_u V: a sum over the user's items, so a
    fresh one can be computed from recent items alone; by item vectors it is
    (sum of d_i^-(item_power + item_lift) item_i) / s^singular_power.
    """
    n_items = size.items
    built = blocks.build(
        interactions, n_items=n_items, partitions=blocks.partitions_for(size.events), binary=shape.binary
    ).persist()
    degrees = blocks.total(built, _degree, n_items=n_items, columns=1)[:, 0]
    scale = _power(degrees, -shape.item_power)
    width = min(dim + OVERSAMPLING, n_items, size.users)
    gram_times = functools.partial(_gram_times, spark, built, scale, user_power=shape.user_power)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((n_items, width), np.float32))[0]
    for _ in range(POWER_ITERATIONS):
        basis = np.linalg.qr(gram_times(basis))[0]
    squares, rotation = np.linalg.eigh((basis.T @ gram_times(basis)).astype(np.float64))
    order = np.argsort(-squares)[:dim]
    singular = np.sqrt(np.maximum(squares[order], 0)).astype(np.float32)
    vectors = (basis @ rotation[:, order]).astype(np.float32)
    vectors *= _signs(vectors)
    lift = _power(degrees, shape.item_lift)[:, None]
    scaled = singular**shape.singular_power
    item_vectors = np.ascontiguousarray(vectors * scaled * lift)
    projection = UserProjection(_power(degrees, -shape.item_power - shape.item_lift), scaled)
    terms = np.ascontiguousarray(vectors * scale[:, None])
    mean_user = unit((degrees @ terms)[None])[0]
    shared = spark.sparkContext.broadcast((terms, mean_user))
    project = functools.partial(_project, shared, n_items)
    user_vectors = built.mapInArrow(project, "user_index int, vector array<float>")
    known = [np.frombuffer(row.users, "<i4") for row in built.select("users").collect()]
    return Factors(item_vectors, user_vectors, np.sort(np.concatenate(known)), mean_user, singular, projection)


def _power(values: Float32s, exponent: float) -> Float32s:
    """values^exponent, 0 where the value is 0: an item nobody took has no direction."""
    out = np.zeros_like(values, np.float32)
    np.power(values, np.float32(exponent), out=out, where=values > 0)
    return out


def _signs(vectors: Float32s) -> Float32s:
    """One sign a column, so that the largest entry is positive: an SVD leaves signs open, a snapshot should not."""
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return np.where(signs == 0, 1, signs).astype(np.float32)


def _degree(block: Block) -> Float32s:
    return np.asarray(block.matrix.sum(axis=0), np.float32).reshape(-1, 1)


def _user_scale(matrix: sparse.csr_matrix, power: float) -> Float32s:
    """d_u^-power, float32 [rows, 1]; every row of a block has an entry."""
    degrees = np.asarray(matrix.sum(axis=1), np.float32).reshape(-1, 1)
    return degrees**-power


def _gram_times(
    spark: SparkSession, built: DataFrame, scale: Float32s, basis: Float32s, *, user_power: float
) -> Float32s:
    """A'(A basis), float32 [n_items, columns]: one pass over the data."""
    n_items, columns = basis.shape
    shared = spark.sparkContext.broadcast(np.ascontiguousarray(basis * scale[:, None]))
    try:
        term = functools.partial(_gram_term, shared, user_power)
        return blocks.total(built, term, n_items=n_items, columns=columns) * scale[:, None]
    finally:
        shared.destroy()


def _gram_term(shared: Broadcast[Float32s], user_power: float, block: Block) -> Float32s:
    image = block.matrix @ shared.value
    image *= _user_scale(block.matrix, user_power) ** 2
    return np.asarray(block.matrix.T @ image, np.float32)


def _project(
    shared: Broadcast[tuple[Float32s, Float32s]], n_items: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Each block's users: A_u V up to a factor of the user's own."""
    terms, mean_user = shared.value
    for _, block in blocks.unpack(batches, n_items=n_items):
        yield user_batch(block.users, block.matrix @ terms, mean_user=mean_user)
