"""times: what the data calls a time, as microseconds since 1970 in UTC.

Numbers are unix times; their size tells the unit, per value: below 1e11 seconds (until the year 5138), below 1e14 milliseconds,
below 1e17 microseconds, else nanoseconds. Whole numbers that read as a date of the years 1900 to 2100 (20240501) are that date.
Text is such a number or ISO 8601; without a zone it is taken as UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.ingest.rows import Bools, Int64s

MILLISECONDS_FROM, MICROSECONDS_FROM, NANOSECONDS_FROM = 10**11, 10**14, 10**17
_FIRST_DATE, _LAST_DATE = 19_000_101, 21_001_231
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?")
_TOO_FINE = re.compile(r"(\.[0-9]{6})[0-9]+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LARGEST = 9.2e18


def micros(column: pa.Array) -> tuple[Int64s, Bools]:
    """int64 [n], 0 where there is none; and whether there is one. Raises TypeError for a column that cannot hold times."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _whole(column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()))
    if pa.types.is_date(kind):
        return _whole(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()))
    if pa.types.is_integer(kind):
        values, known = _whole(column.cast(pa.int64(), safe=False))
        return _of_integers(values, known)
    if pa.types.is_floating(kind):
        return _of_floats(column.cast(pa.float64()))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_text(column.cast(pa.string()))
    if pa.types.is_null(kind):
        return np.zeros(len(column), np.int64), np.zeros(len(column), bool)
    raise TypeError(str(kind))


def _whole(column: pa.Array) -> tuple[Int64s, Bools]:
    known = column.is_valid().to_numpy(zero_copy_only=False)
    return column.fill_null(0).to_numpy(zero_copy_only=False), known


def _of_integers(values: Int64s, known: Bools) -> tuple[Int64s, Bools]:
    values = np.maximum(values, -(2**62))  # the least int64 has no absolute value
    size = np.abs(values)
    out = np.where(
        size < MILLISECONDS_FROM,
        values * np.int64(1_000_000),
        np.where(
            size < MICROSECONDS_FROM,
            values * np.int64(1000),
            np.where(size < NANOSECONDS_FROM, values, values // 1000),
        ),
    )
    known = known.copy()
    for at in np.flatnonzero((values >= _FIRST_DATE) & (values <= _LAST_DATE)).tolist():
        moment = _of_date(int(values[at]))
        if moment is not None:
            out[at] = moment
    return out, known


def _of_date(number: int) -> int | None:
    try:
        return (datetime(number // 10_000, number // 100 % 100, number % 100, tzinfo=UTC) - _EPOCH) // _MICROSECOND
    except ValueError:
        return None


def _of_floats(column: pa.Array) -> tuple[Int64s, Bools]:
    values: NDArray[np.float64] = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
    known = np.isfinite(values) & (np.abs(values) < _LARGEST)
    values = np.where(known, values, 0.0)
    whole, known = _of_integers(values.astype(np.int64), known)
    broken = values % 1 != 0
    if not np.any(broken):
        return whole, known
    size = np.abs(values)
    scale = np.select(
        [size < MILLISECONDS_FROM, size < MICROSECONDS_FROM, size < NANOSECONDS_FROM], [1e6, 1e3, 1.0], 1e-3
    )
    return np.where(broken, np.rint(values * scale).astype(np.int64), whole), known


def _of_text(column: pa.Array) -> tuple[Int64s, Bools]:
    """A whole batch in one form is cast at once; a mixed one goes value by value."""
    blank = pc.equal(column, "")
    column = pc.if_else(blank, pa.scalar(None, pa.string()), column)
    if column.null_count == len(column):
        return np.zeros(len(column), np.int64), np.zeros(len(column), bool)
    for kind in (pa.int64(), pa.float64(), pa.timestamp("us", "UTC"), pa.timestamp("us")):
        try:
            return micros(column.cast(kind))
        except pa.ArrowInvalid:
            continue
    found = [None if text is None else one(text) for text in column.to_pylist()]
    known = np.array([value is not None for value in found])
    return np.array([value or 0 for value in found], np.int64), known


def one(text: str) -> int | None:
    """Microseconds of one text, or None: the oracle of the fast ways and the way of mixed columns."""
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return int(_of_integers(np.array([int(text)], np.int64), np.ones(1, bool))[0][0])
    if _FLOAT.fullmatch(text):
        values, known = _of_floats(pa.array([float(text)], pa.float64()))
        return int(values[0]) if known[0] else None
    if len(text) < len("2024-05-01"):
        return None
    try:
        moment = datetime.fromisoformat(_TOO_FINE.sub(r"\1", text))
    except ValueError:
        return None
    try:
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    except OverflowError:
        return None
