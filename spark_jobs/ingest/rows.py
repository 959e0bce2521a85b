"""rows: what every reader hands on: columns as they stand in a file, the line of each row, and the lines that are no rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Reason(StrEnum):
    """Why a row was rejected; the names are those of the rejects file and of dataset.json."""

    FIELD_COUNT = "field_count"
    """More or fewer fields than the table has columns: a torn line, or a delimiter inside an unquoted value."""
    TORN_QUOTE = "torn_quote"
    """A quote that is never closed, or text after a closed one."""
    NOT_UTF8 = "not_utf8"
    INVALID_JSON = "invalid_json"
    """No JSON object on that line."""
    MISSING_ID = "missing_id"
    BAD_ID = "bad_id"
    """Longer than 256 bytes, or no text and no whole number."""
    BAD_TIME = "bad_time"
    """Missing, or neither a number nor ISO 8601."""
    TIME_OUT_OF_RANGE = "time_out_of_range"
    """Before 1970."""
    FUTURE_TIME = "future_time"
    BAD_TYPE = "bad_type"
    """Empty, or longer than 64 bytes."""
    BAD_VALUE = "bad_value"
    """No number."""
    VALUE_NOT_FINITE = "value_not_finite"
    """NaN, infinite, or too large for a float32."""
    DUPLICATE = "duplicate"
    """The same user, item, time and type once more; in a side table, the same id once more. The first one counts."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that could not even be read as a row."""

    line: int
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of one file, in its order.

    columns: field -> values as read (text, or the file's own types), all of one length n. lines: int64 [n], 1-based (in Parquet,
    the row). text: the row k as a person would find it in the file. faults: lines met on the way that are no rows.
    """

    file: str
    lines: Int64s
    columns: dict[str, pa.Array]
    text: Callable[[int], str]
    faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self.lines)
