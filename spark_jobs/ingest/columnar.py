"""columnar: Parquet, row group by row group; a row's line is its number in the file, from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.ingest.blocks import shown
from spark_jobs.ingest.inputs import Advance, InputFile, seekable
from spark_jobs.ingest.rows import Rows

_BATCH_ROWS = 262_144


def names(file: InputFile) -> list[str]:
    """The top-level columns."""
    with seekable(file) as stream:
        return list(pq.read_schema(stream).names)


def row_count(file: InputFile) -> int:
    """As the footer says."""
    with seekable(file) as stream:
        return int(pq.read_metadata(stream).num_rows)


def read(file: InputFile, wanted: Mapping[str, str], *, advance: Advance = lambda n: None) -> Iterator[Rows]:
    """wanted: field -> column. `advance` is told the share of the file's bytes that the rows so far stand for."""
    with seekable(file) as stream:
        parquet = pq.ParquetFile(stream, pre_buffer=False)
        total, start, told = max(1, parquet.metadata.num_rows), 0, 0
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=sorted(set(wanted.values()))):
            columns = {field: batch.column(name) for field, name in wanted.items()}
            yield _rows(file, columns, start)
            start += batch.num_rows
            reached = file.size_bytes * start // total
            advance(reached - told)
            told = reached
        advance(file.size_bytes - told)


def _rows(file: InputFile, columns: dict[str, pa.Array], start: int) -> Rows:
    n_rows = len(next(iter(columns.values())))

    def text(k: int) -> str:
        row = {field: column[k].as_py() for field, column in columns.items()}
        return shown(json.dumps(row, default=str, ensure_ascii=False))

    return Rows(file.name, np.arange(start + 1, start + 1 + n_rows), columns, text)
