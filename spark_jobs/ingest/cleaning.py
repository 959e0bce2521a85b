"""cleaning: which rows are events, and why the others are not; whole columns at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infra.contracts.errors import DataRefused
from infra.contracts.events import MAX_CLOCK_SKEW, MAX_TYPE_BYTES
from infra.contracts.ids import MAX_ID_BYTES
from spark_jobs.ingest import times
from spark_jobs.ingest.jsonlines import UNUSABLE
from spark_jobs.ingest.rows import Bools, Int64s, Reason, Rows

_REASONS = tuple(Reason)
_FINE = -1


@dataclass(frozen=True, slots=True)
class Clean:
    """Events of one batch, in the file's order: equally long columns.

    user_ids, item_ids: string; event_types: string; times_us: int64, since 1970, UTC; values: float32, NaN where none;
    lines: int64. rejected: the position in the batch of each other row, and why.
    """

    user_ids: pa.Array
    item_ids: pa.Array
    event_types: pa.Array
    times_us: Int64s
    values: NDArray[np.float32]
    lines: Int64s
    rejected: tuple[tuple[int, Reason], ...]


class _Verdicts:
    """The first reason against each row."""

    def __init__(self, n_rows: int) -> None:
        self.codes = np.full(n_rows, _FINE, np.int8)

    def against(self, bad: Bools, reason: Reason) -> None:
        self.codes[bad & (self.codes == _FINE)] = _REASONS.index(reason)

    def rejected(self) -> tuple[tuple[int, Reason], ...]:
        return tuple((int(at), _REASONS[self.codes[at]]) for at in np.flatnonzero(self.codes != _FINE))


def clean(rows: Rows, *, now: datetime, default_type: str, times_us: Int64s | None = None) -> Clean:
    """times_us: the moments of the rows where the data has none. Times later than `now` (and a clock's error) are rejected."""
    verdicts = _Verdicts(len(rows))
    user_ids = ids_of(rows, "user", verdicts)
    item_ids = ids_of(rows, "item", verdicts)
    if times_us is None:
        times_us = _times_of(rows, now, verdicts)
    event_types = _types_of(rows, default_type, verdicts)
    values = _values_of(rows, verdicts)
    if np.all(verdicts.codes == _FINE):
        return Clean(user_ids, item_ids, event_types, times_us, values, rows.lines, ())
    fine = verdicts.codes == _FINE
    kept = pa.array(fine)
    return Clean(
        user_ids.filter(kept),
        item_ids.filter(kept),
        event_types.filter(kept),
        times_us[fine],
        values[fine],
        rows.lines[fine],
        verdicts.rejected(),
    )


def keys_of(rows: Rows, field: str) -> tuple[pa.Array, Bools, tuple[tuple[int, Reason], ...]]:
    """The ids of a side table: string [n], which are usable, and why the others are not."""
    verdicts = _Verdicts(len(rows))
    ids = ids_of(rows, field, verdicts)
    return ids, verdicts.codes == _FINE, verdicts.rejected()


def ids_of(rows: Rows, field: str, verdicts: _Verdicts) -> pa.Array:
    """A column as ids: text as it is, whole numbers as their digits."""
    text, unusable = text_of(rows, field)
    verdicts.against(unusable | _truth(pc.equal(text, UNUSABLE)), Reason.BAD_ID)
    size = pc.binary_length(text).fill_null(0).to_numpy(zero_copy_only=False)
    verdicts.against(size == 0, Reason.MISSING_ID)
    verdicts.against(size > MAX_ID_BYTES, Reason.BAD_ID)
    return text


def text_of(rows: Rows, field: str) -> tuple[pa.Array, Bools]:
    """string [n] with nulls, and which values are no text and no whole number."""
    column = rows.columns[field]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, none = column.type, np.zeros(len(column), bool)
    if pa.types.is_string(kind):
        return column, none
    if pa.types.is_integer(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return column.cast(pa.string()), none
    if pa.types.is_floating(kind):  # how pandas writes whole numbers with gaps
        values = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        whole = np.isfinite(values) & (values % 1 == 0) & (np.abs(values) < 2**53)
        digits = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
        return digits.cast(pa.string()), ~whole & ~np.isnan(values)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        texts = [None if value is None else _decoded(value) for value in column.to_pylist()]
        return pa.array(texts, pa.string()), none
    raise DataRefused(_wrong_type(rows, field, kind), mend="Wanted text or whole numbers.")


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return UNUSABLE


def _times_of(rows: Rows, now: datetime, verdicts: _Verdicts) -> Int64s:
    try:
        found, known = times.micros(rows.columns["time"])
    except TypeError as error:
        mend = "Wanted a timestamp, a date, a unix time or ISO 8601 text."
        raise DataRefused(_wrong_type(rows, "time", error.args[0]), mend=mend) from error
    verdicts.against(~known, Reason.BAD_TIME)
    verdicts.against(found < 0, Reason.TIME_OUT_OF_RANGE)
    verdicts.against(found > (now + MAX_CLOCK_SKEW).timestamp() * 1e6, Reason.FUTURE_TIME)
    return found


def _types_of(rows: Rows, default_type: str, verdicts: _Verdicts) -> pa.Array:
    if "type" not in rows.columns:
        return pa.repeat(pa.scalar(default_type, pa.string()), len(rows))
    text, unusable = text_of(rows, "type")
    size = pc.binary_length(text).fill_null(0).to_numpy(zero_copy_only=False)
    bad = unusable | (size == 0) | (size > MAX_TYPE_BYTES) | _truth(pc.equal(text, UNUSABLE))
    verdicts.against(bad, Reason.BAD_TYPE)
    return text


def _values_of(rows: Rows, verdicts: _Verdicts) -> NDArray[np.float32]:
    """Empty and null are no value, which is fine; NaN is a value that went wrong, which is not."""
    if "value" not in rows.columns:
        return np.full(len(rows), np.nan, np.float32)
    column = rows.columns["value"]
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column, unparsable = numbers_of(column)
        verdicts.against(unparsable, Reason.BAD_VALUE)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = column.cast(pa.float64(), safe=False)
    else:
        raise DataRefused(_wrong_type(rows, "value", kind), mend="Wanted numbers.")
    given = column.is_valid().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        values = column.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float32)
    verdicts.against(given & ~np.isfinite(values), Reason.VALUE_NOT_FINITE)
    return values


def numbers_of(column: pa.Array) -> tuple[pa.Array, Bools]:
    """Text as float64 with nulls where it is empty or no number, and where it is no number."""
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.float64()), np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        found = [None if text is None else _number(text) for text in column.to_pylist()]
    unparsable = np.array([value is False for value in found])
    return pa.array([None if value is False else value for value in found], pa.float64()), unparsable


def _number(text: str) -> float | bool | None:
    """A float, None for blanks, False for anything else."""
    text = text.strip()
    if not text:
        return None
    try:
        return False if "_" in text else float(text)
    except ValueError:
        return False


def _truth(mask: pa.Array) -> Bools:
    return mask.fill_null(False).to_numpy(zero_copy_only=False)


def _wrong_type(rows: Rows, field: str, kind: object) -> str:
    return f"{rows.file}: the column for the {field} is of type {kind}."
