"""vectors: what an embedder learns, and its matrices as Arrow columns of float lists and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from infra.contracts.candidates import Float32s, Int32s
from infra.snapshots.tables import USER_WEIGHT, UserProjection


@dataclass(frozen=True, slots=True)
class Size:
    """How large an interaction matrix is, and of how many events."""

    users: int
    items: int
    events: int


@dataclass(frozen=True, slots=True)
class Factors:
    """What an embedder learns.

    item_vectors: float32 [n_items, d]; user_vectors: frame of user_index, vector (length 1) of the users that have
    interactions, which known_users lists; mean_user: float32 [d], length 1; singular_values: float32 [d] falling, or empty;
    projection: from item vectors to a user's.
    """

    item_vectors: Float32s
    user_vectors: DataFrame
    known_users: Int32s
    mean_user: Float32s
    singular_values: Float32s
    projection: UserProjection


ITEM_VECTORS_SCHEMA = pa.schema(
    [
        pa.field("item_index", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
        pa.field(USER_WEIGHT, pa.float32(), nullable=False),
    ]
)
USER_VECTORS_SCHEMA = pa.schema(
    [pa.field("user_index", pa.int32(), nullable=False), pa.field("vector", pa.list_(pa.float32()), nullable=False)]
)


def vector_column(matrix: Float32s) -> pa.ListArray:
    """float32 [n, d] as a column of n lists."""
    n, d = matrix.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(0, (n + 1) * d, d, dtype=np.int32)), pa.array(matrix.ravel()))


def matrix_of(column: pa.Array | pa.ChunkedArray) -> Float32s:
    """A column of equally long lists as float32 [n, d]; [0, 0] where it is empty."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if len(column) == 0:
        return np.zeros((0, 0), np.float32)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), -1)


def unit(vectors: Float32s) -> Float32s:
    """Rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: Float32s = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return out


def user_batch(users: Int32s, vectors: Float32s, *, mean_user: Float32s) -> pa.RecordBatch:
    """Users as unit vectors; those whose vector is zero get the mean user's.

    The length of a user's vector does not change that user's order of items; unit length puts all users' scores on one
    scale, where float16 keeps them apart.
    """
    rows = unit(np.asarray(vectors, np.float32))
    rows[~np.any(rows != 0, axis=1)] = mean_user
    return pa.RecordBatch.from_arrays([pa.array(users), vector_column(rows)], ["user_index", "vector"])
