"""records: what Redis holds for users, made of Parquet rows. Sealing, loading and checking all make it here and nowhere else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infra.contracts.candidates import MAX_HISTORY, MAX_USER_FEATURES, pack_bytes
from infra.snapshots import keys

KEY_COLUMNS = ("user_id", "history", "consumed")
"""The columns that decide which keys there are; they are a few per cent of a row."""

RECORD_COLUMNS = (*KEY_COLUMNS, "item_indices", "scores", "features")
"""The columns that decide the values too."""

_TABLE_RESIZE_BYTES_PER_KEY = 32
"""Redis's hash table while it doubles: both tables are held, two and one pointers a key at the worst."""

_NO_ITEM = np.int64(-1)


@dataclass(frozen=True, slots=True)
class Records:
    """Some users' records, in the order of their rows: all packed records, then the older consumed items of those who have some.

    keys: what follows the version's prefix; values: aligned with keys.
    """

    users: int
    keys: list[bytes]
    values: list[bytes]

    @property
    def payload_bytes(self) -> int:
        """Bytes of all values."""
        return sum(map(len, self.values))

    def redis_bytes(self, *, prefix_bytes: int) -> int:
        """Memory that Redis 7 takes for them under a version's prefix of that length."""
        sizes = Counter(zip(map(len, self.keys), map(len, self.values), strict=True))
        return sum(
            n * record_memory_bytes(payload_bytes=value, key_bytes=key + prefix_bytes)
            for (key, value), n in sizes.items()
        )


def records_of(rows: pa.RecordBatch) -> Records:
    """The records of some rows of CANDIDATES_SCHEMA; rows has RECORD_COLUMNS.

    Rows whose arrays do not fit together (`torn_user` names one) make values that are no records: the gate judges them.
    """
    columns = (rows[name].to_pylist() for name in ("item_indices", "scores", "features", "history"))
    values = [
        pack_bytes(item_indices=items, scores=scores, features=features, history=history)
        for items, scores, features, history in zip(*columns, strict=True)
    ]
    return Records(rows.num_rows, keys_of(rows), values + _older_consumed(rows))


def keys_of(rows: pa.RecordBatch) -> list[bytes]:
    """The keys of `records_of` alone; rows has KEY_COLUMNS."""
    ids = rows["user_id"].cast(pa.binary()).to_pylist()
    record, consumed = keys.RECORD.encode(), keys.CONSUMED.encode()
    return [record + name for name in ids] + [consumed + ids[row] for row in _with_older(rows).tolist()]


def torn_user(rows: pa.RecordBatch) -> str | None:
    """A user whose arrays do not fit together, None where there is none; rows has RECORD_COLUMNS."""
    items, scores, history = (_bytes_in(rows[name]) for name in ("item_indices", "scores", "history"))
    features, consumed = _bytes_in(rows["features"]), _bytes_in(rows["consumed"])
    torn = (items != 2 * scores) | (items % 4 > 0) | (history % 4 > 0) | (features % 2 > 0) | (consumed % 4 > 0)
    torn |= (history > 4 * MAX_HISTORY) | (features > 2 * MAX_USER_FEATURES)
    return str(rows["user_id"][int(torn.argmax())]) if torn.any() else None


def allocated_bytes(request_bytes: int) -> int:
    """What jemalloc gives for a request: four size classes for each doubling above 128 bytes, 16-byte steps below."""
    if request_bytes <= 128:
        return -(-request_bytes // 16) * 16
    step = 1 << ((request_bytes - 1).bit_length() - 3)
    return -(-request_bytes // step) * step


def record_memory_bytes(*, payload_bytes: int, key_bytes: int) -> int:
    """Memory of one string key in Redis 7: value and key with their headers, the object, the table's entry."""
    value = allocated_bytes(payload_bytes + 6)
    key = allocated_bytes(key_bytes + 4)
    return value + key + 16 + 24 + _TABLE_RESIZE_BYTES_PER_KEY


def _with_older(rows: pa.RecordBatch) -> NDArray[np.int64]:
    """The rows of users who consumed more than their record remembers."""
    return np.flatnonzero(_bytes_in(rows["consumed"]) > _bytes_in(rows["history"]))


def _older_consumed(rows: pa.RecordBatch) -> list[bytes]:
    """For each of those rows: int32 little-endian, rising: what was consumed and is not in `history`."""
    chosen = rows.select(("history", "consumed")).take(pa.array(_with_older(rows)))
    if chosen.num_rows == 0:
        return []
    consumed, recent = np.sort(_row_and_item(chosen["consumed"])), np.sort(_row_and_item(chosen["history"]))
    is_recent = np.append(recent, _NO_ITEM)[np.searchsorted(recent, consumed)] == consumed
    older = consumed[~is_recent & (np.diff(consumed, prepend=_NO_ITEM) > 0)]
    ends = np.searchsorted(older, np.arange(1, chosen.num_rows, dtype=np.int64) << 32)
    items = (older & 0xFFFFFFFF).astype("<u4")
    return [part.tobytes() for part in np.split(items, ends)]


def _row_and_item(column: pa.Array) -> NDArray[np.int64]:
    """int64 [n values]: the row in the upper half, the item index in the lower, so that one sort serves all rows."""
    n_values = _bytes_in(column) // 4
    whole = b"".join(value[: 4 * n] for value, n in zip(column.to_pylist(), n_values.tolist(), strict=True))
    row = np.repeat(np.arange(len(n_values), dtype=np.int64), n_values)
    return (row << 32) | np.frombuffer(whole, "<u4").astype(np.int64)


def _bytes_in(column: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.binary_length(column), 0), np.int64)
