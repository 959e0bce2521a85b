"""blocks: the interaction matrix as CSR blocks of users, spread over the workers; every pass over the data runs on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from scipy import sparse

from infra.contracts.candidates import Float32s, Int32s

BLOCK_ROWS = 32_768
"""A block times a basis of 160 columns is then at most 21 MB in a worker."""
BLOCK_EVENTS = 1_000_000
"""And its CSR arrays at most 8 MB, one row of Spark's cache."""
SLICE_BYTES = 4 << 20
"""A partial sum travels in slices of this size, so that no worker or driver holds all partial sums at once."""

_BLOCK_SCHEMA = "part int, users binary, indptr binary, items binary, weights binary"
_SUM_SCHEMA = "part int, slice int, total binary"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive users of one partition. users: int32 [rows], rising; matrix: float32 CSR [rows, n_items], no duplicates."""

    users: Int32s
    matrix: sparse.csr_matrix


def partitions_for(n_events: int) -> int:
    """How many parts the users are split into: by the data alone, so that every master sums in the same order."""
    return int(np.clip(n_events // 500_000 + 1, 4, 64))


def build(interactions: DataFrame, *, n_items: int, partitions: int, binary: bool = False) -> DataFrame:
    """Blocks of the weighted interactions (user_index, item_index, weight); repeated pairs add up, or, binary, count as 1.

    All of a user's rows come to one partition and are sorted there: equal input makes equal blocks, byte for byte.
    """
    rows = interactions.selectExpr(
        "cast(user_index as int) user_index", "cast(item_index as int) item_index", "cast(weight as float) weight"
    )
    spread = rows.repartition(partitions, "user_index")
    return spread.mapInArrow(functools.partial(_build_partition, n_items, binary), _BLOCK_SCHEMA)


def _build_partition(n_items: int, binary: bool, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    parts = [
        (_numbers(batch, "user_index"), _numbers(batch, "item_index"), _numbers(batch, "weight")) for batch in batches
    ]
    parts = [part for part in parts if len(part[0])]
    if not parts:
        return
    user, item, weight = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    parts.clear()
    order = np.lexsort((weight, item, user))
    user, item, weight = user[order], item[order], weight[order]
    users, starts = np.unique(user, return_index=True)
    starts = np.append(starts, len(user))
    low = 0
    number = int(users[0])  # any number that is unique and does not depend on where the partition runs
    while low < len(users):
        fits = int(np.searchsorted(starts, starts[low] + BLOCK_EVENTS, side="right")) - 1
        high = min(len(users), low + BLOCK_ROWS, max(low + 1, fits))
        rows = slice(starts[low], starts[high])
        indptr = starts[low : high + 1] - starts[low]
        matrix = sparse.csr_matrix((weight[rows], item[rows], indptr), shape=(high - low, n_items))
        matrix.sum_duplicates()
        if binary:
            matrix.data[:] = 1
        arrays = (users[low:high], matrix.indptr, matrix.indices)
        columns = [[array.astype("<i4").tobytes()] for array in arrays] + [[matrix.data.astype("<f4").tobytes()]]
        names = ["part", "users", "indptr", "items", "weights"]
        yield pa.RecordBatch.from_arrays(
            [pa.array([number], pa.int32()), *(pa.array(column, pa.binary()) for column in columns)], names
        )
        low = high


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.generic]:
    column: NDArray[np.generic] = batch.column(name).to_numpy(zero_copy_only=False)
    return column


def unpack(batches: Iterator[pa.RecordBatch], *, n_items: int) -> Iterator[tuple[int, Block]]:
    """The partition's number and its blocks, one after another."""
    for batch in batches:
        for row in batch.to_pylist():
            users, indptr, items = (np.frombuffer(row[name], "<i4") for name in ("users", "indptr", "items"))
            weights = np.frombuffer(row["weights"], "<f4")
            matrix = sparse.csr_matrix((weights, items, indptr), shape=(len(users), n_items), copy=False)
            yield row["part"], Block(users, matrix)


def total(blocks: DataFrame, term: Callable[[Block], Float32s], *, n_items: int, columns: int) -> Float32s:
    """The sum over all blocks of `term(block)`, float32 [n_items, columns].

    Each partition adds up its own blocks, then slices of the partial sums meet in a second stage, added in the order of
    their partitions: the sum is spread over the workers and its bits do not depend on timing.
    """
    summed = blocks.mapInArrow(functools.partial(_sum_partition, term, n_items, columns), _SUM_SCHEMA)
    slices = summed.groupBy("slice").applyInArrow(_add_up, "slice int, total binary").toArrow()
    out = np.zeros((n_items, columns), np.float32)
    height = _slice_rows(columns)
    for number, content in zip(slices["slice"].to_pylist(), slices["total"], strict=True):
        rows = np.frombuffer(content.as_buffer(), "<f4").reshape(-1, columns)
        out[number * height : number * height + len(rows)] = rows
    return out


def _slice_rows(columns: int) -> int:
    return max(1, SLICE_BYTES // (4 * columns))


def _sum_partition(
    term: Callable[[Block], Float32s], n_items: int, columns: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    summed: Float32s | None = None
    part = 0
    for number, block in unpack(batches, n_items=n_items):
        if summed is None:
            summed, part = term(block), number
        else:
            summed += term(block)
    if summed is None:
        return
    height = _slice_rows(columns)
    for at in range(0, n_items, height):
        content = np.ascontiguousarray(summed[at : at + height], "<f4").tobytes()
        yield pa.RecordBatch.from_arrays(
            [pa.array([part], pa.int32()), pa.array([at // height], pa.int32()), pa.array([content], pa.binary())],
            ["part", "slice", "total"],
        )


def _add_up(rows: pa.Table) -> pa.Table:
    rows = rows.sort_by("part")
    summed = np.frombuffer(rows["total"][0].as_buffer(), "<f4").copy()
    for content in rows["total"][1:]:
        summed += np.frombuffer(content.as_buffer(), "<f4")
    return pa.table({"slice": rows["slice"].slice(0, 1), "total": pa.array([summed.tobytes()], pa.binary())})
