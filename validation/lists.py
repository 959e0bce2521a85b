"""lists: the candidate files of a snapshot, decoded into matrices of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infra.contracts.candidates import MAX_HISTORY, Float16s, Int32s
from infra.snapshots.storage import Storage
from infra.snapshots.tables import candidate_batches

Int64s = NDArray[np.int64]
UInt16s = NDArray[np.uint16]
Scalar = TypeVar("Scalar", bound=np.generic)

PAD = np.int32(np.iinfo(np.int32).max)
"""What fills the rows of a matrix of items beyond their lengths; a list may hold it too, so lengths decide."""

_ITEM: np.dtype[np.int32] = np.dtype("<i4")
_BITS: np.dtype[np.uint16] = np.dtype("<u2")

MAX_CELLS = 4 << 20
"""Matrices are at most this large (16 MB of items), however long a broken list is."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Some users' lists.

    items: int32 [n, w], best first, PAD from n_items[row] on; bits: the float16 scores as uint16 [n, w], 0 from
    n_scores[row] on. torn: int64 [n], how many of the row's five packed values have a length that cannot be right.
    history: int32, all rows' recent items one after another, n_history[row] of each; consumed: likewise, of n_consumed.
    """

    user_index: Int32s
    user_id: list[str]
    items: Int32s
    n_items: Int64s
    bits: UInt16s
    n_scores: Int64s
    torn: Int64s
    features: Float16s
    history: Int32s
    n_history: Int64s
    consumed: Int32s
    n_consumed: Int64s

    def __len__(self) -> int:
        return len(self.user_index)

    @property
    def full(self) -> bool:
        """True where every row of both matrices is filled: no masks are needed."""
        width = self.items.shape[1]
        return bool(np.all(self.n_items == width) and np.all(self.n_scores == width))

    def filled(self) -> NDArray[np.bool_]:
        """bool [n, w]: which cells of `items` belong to a list."""
        return np.arange(self.items.shape[1]) < self.n_items[:, None]

    def scored(self) -> NDArray[np.bool_]:
        """bool [n, w]: which cells of `bits` belong to a list."""
        return np.arange(self.items.shape[1]) < self.n_scores[:, None]


def read_lists(storage: Storage, files: list[str], *, n_features: int) -> Iterator[Lists]:
    """Every list of the files, in the order in which they lie there. n_features: how many a user's record must hold."""
    for batch in candidate_batches(storage, files):
        for part in _narrow(batch):
            yield _decode(part, n_features=n_features)


def _narrow(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts whose matrices stay within MAX_CELLS; a single row is never split."""
    widest = int(np.max(_sizes(batch.column("item_indices")), initial=4)) // 4
    widest = max(widest, int(np.max(_sizes(batch.column("scores")), initial=2)) // 2)
    if batch.num_rows > 1 and batch.num_rows * widest > MAX_CELLS:
        half = batch.num_rows // 2
        yield from _narrow(batch.slice(0, half))
        yield from _narrow(batch.slice(half))
    elif batch.num_rows:
        yield batch


def _decode(batch: pa.RecordBatch, *, n_features: int) -> Lists:
    items, n_items, torn_items = _values(batch.column("item_indices"), _ITEM)
    bits, n_scores, torn_scores = _values(batch.column("scores"), _BITS)
    features, n_found, torn_features = _values(batch.column("features"), _BITS)
    history, n_history, torn_history = _values(batch.column("history"), _ITEM)
    consumed, n_consumed, torn_consumed = _values(batch.column("consumed"), _ITEM)
    torn = (
        torn_items.astype(np.int64)
        + (torn_scores | (n_scores != n_items))
        + (torn_features | (n_found != n_features))
        + (torn_history | (n_history > MAX_HISTORY))
        + torn_consumed
    )
    widest = int(max(n_items.max(), n_scores.max()))
    return Lists(
        user_index=batch.column("user_index").to_numpy(),
        user_id=batch.column("user_id").to_pylist(),
        items=_rows(items, n_items, width=widest, pad=PAD),
        n_items=n_items,
        bits=_rows(bits, n_scores, width=widest, pad=np.uint16(0)),
        n_scores=n_scores,
        torn=torn,
        features=_first(features, n_found, width=n_features).view(np.float16),
        history=history,
        n_history=n_history,
        consumed=consumed,
        n_consumed=n_consumed,
    )


def _offsets(column: pa.Array) -> NDArray[np.int32]:
    found = np.frombuffer(column.buffers()[1], np.int32)
    return found[column.offset : column.offset + len(column) + 1]


def _sizes(column: pa.Array) -> NDArray[np.int32]:
    return np.diff(_offsets(column))


def _values(column: pa.Array, dtype: np.dtype[Scalar]) -> tuple[NDArray[Scalar], Int64s, NDArray[np.bool_]]:
    """A binary column as: whole values one after another, how many each row has, which rows have bytes left over."""
    sizes = _sizes(column).astype(np.int64)
    counts, left_over = np.divmod(sizes, dtype.itemsize)
    torn = left_over > 0
    total = int(counts.sum())
    if total == 0:
        return np.zeros(0, dtype), counts, torn
    if not torn.any():
        start = int(_offsets(column)[0])
        return np.frombuffer(column.buffers()[2], dtype, total, start), counts, torn
    whole = (value[: count * dtype.itemsize] for value, count in zip(column.to_pylist(), counts.tolist(), strict=True))
    return np.frombuffer(b"".join(whole), dtype), counts, torn


def _rows(flat: NDArray[Scalar], counts: Int64s, *, width: int, pad: Scalar) -> NDArray[Scalar]:
    if np.all(counts == width):
        return flat.reshape(len(counts), width)
    out = np.full((len(counts), width), pad, flat.dtype)
    out[np.arange(width) < counts[:, None]] = flat
    return out


def _first(flat: UInt16s, counts: Int64s, *, width: int) -> UInt16s:
    """The first `width` values of each row, zeros where it has fewer."""
    return np.ascontiguousarray(_rows(flat, counts, width=int(max(width, counts.max())), pad=np.uint16(0))[:, :width])
