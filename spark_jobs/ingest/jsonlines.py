"""jsonlines: one JSON object a line as columns of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
import orjson
import pyarrow as pa

from infra.contracts.errors import DataRefused
from spark_jobs.ingest.blocks import Block, Blocks, shown
from spark_jobs.ingest.inputs import Advance, InputFile, reading
from spark_jobs.ingest.rows import Fault, Reason, Rows

_HEAD_LINES = 100
LIST_MARK = "|"
"""A list of texts becomes one text with this between, as MovieLens writes genres."""

_FRACTIONAL = frozenset({"time", "value", "age_years", "first_seen"})

UNUSABLE = "\x00unusable"
"""Stands for a value that is no text and no number; no check lets it pass as a time or value, and `ids_of` knows it."""


def keys(file: InputFile) -> list[str]:
    """The keys of the first objects, in the order they were met."""
    found: dict[str, None] = {}
    with reading(file) as stream:
        head = list(islice(stream, _HEAD_LINES))
    if head and head[0].lstrip().startswith(b"["):
        raise DataRefused(
            f"{file.name} is one JSON array; wanted one JSON object a line.", mend="Convert it: jq -c '.[]' FILE"
        )
    for line in head:
        try:
            parsed = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(parsed, dict):
            found.update(dict.fromkeys(parsed))
    if not found:
        raise DataRefused(
            f"{file.name} is empty or holds no JSON object in its first {_HEAD_LINES} lines.",
            mend='Wanted lines such as {"user": "u1", "item": "i1", "time": "2024-05-01T12:00:00Z"}.',
        )
    return list(found)


def read(file: InputFile, wanted: Mapping[str, str], *, advance: Advance = lambda n: None) -> Iterator[Rows]:
    """wanted: field -> key. A key that a line lacks is a null. Blank lines count for nothing."""
    for block in Blocks(file, advance=advance):
        yield _rows(file, block, dict(wanted))


def _rows(file: InputFile, block: Block, wanted: dict[str, str]) -> Rows:
    faults: list[Fault] = []
    numbers: list[int] = []
    values: dict[str, list[str | None]] = {field: [] for field in wanted}
    texts = block.data.split(b"\n")
    for number, raw in enumerate(texts, block.line):
        if not raw or raw == b"\r":
            continue
        try:
            parsed = orjson.loads(raw)
        except orjson.JSONDecodeError:
            faults.append(Fault(number, _why(raw), _shown(raw)))
            continue
        if not isinstance(parsed, dict):
            faults.append(Fault(number, Reason.INVALID_JSON, _shown(raw)))
            continue
        numbers.append(number)
        for field, key in wanted.items():
            values[field].append(_text(parsed.get(key), field))
    columns = {field: pa.array(column, pa.string()) for field, column in values.items()}
    return Rows(
        file.name,
        np.array(numbers, np.int64),
        columns,
        lambda k: _shown(texts[numbers[k] - block.line]),
        tuple(faults),
    )


def _text(value: object, field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        return repr(value) if field in _FRACTIONAL else UNUSABLE
    if isinstance(value, list) and field == "genres":
        return LIST_MARK.join(part for part in value if isinstance(part, str))
    return UNUSABLE


def _why(raw: bytes) -> Reason:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return Reason.NOT_UTF8
    return Reason.INVALID_JSON


def _shown(raw: bytes) -> str:
    return shown(raw.decode(errors="backslashreplace"))
