"""made_again: the feature vectors of all candidates of archived answers, by making the answers again; shown ones and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.contracts.candidates import Float32s
from infra.contracts.errors import HeadgateError
from infra.eventlog.decisions import LoggedDecision
from infra.snapshots.storage import Storage
from spark_jobs.training.replay import Offline, Replayed
from spark_jobs.training.shown import SHOWN_SCHEMA, shown_rows

_FILE_ROWS = 50_000
_WHOLE = tuple(name for name in SHOWN_SCHEMA.names if name not in ("place", "item_id", "score", "features"))
"""Columns that all rows of an answer have the same of."""


@dataclass(frozen=True, slots=True)
class MadeAgain:
    """left_out: answers that were not exact to the bit, or could not be made again: nothing of them is written."""

    answers: int
    left_out: int
    rows: int


async def write_candidates(
    entries: Sequence[LoggedDecision],
    offline: Offline,
    out: Storage,
    folder: str,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> MadeAgain:
    """Files of SHOWN_SCHEMA below a folder: every candidate of every answer, its score and vector as the ranker had them."""
    offline.expect(entry.decision() for entry in entries)
    answers = left_out = rows = files = 0
    held: list[pa.Table] = []
    for entry in entries:
        found = await _again(entry, offline)
        advance(1)
        if found is None:
            left_out += 1
            continue
        answers += 1
        held.append(_table(entry, found))
        rows += held[-1].num_rows
        if sum(table.num_rows for table in held) >= _FILE_ROWS:
            _write(held, out, f"{folder}/part-{files:05d}.parquet")
            held, files = [], files + 1
    if held or not files:
        _write(held, out, f"{folder}/part-{files:05d}.parquet")
    return MadeAgain(answers, left_out, rows)


async def _again(entry: LoggedDecision, offline: Offline) -> Replayed | None:
    try:
        replayed = await offline.replay(entry.decision())
    except HeadgateError:
        return None
    return replayed if replayed.is_exact else None


def _table(entry: LoggedDecision, replayed: Replayed) -> pa.Table:
    """The answer's items as logged, then its candidates that were not shown."""
    logged = shown_rows(entry)
    shown = pa.Table.from_pylist(logged, schema=SHOWN_SCHEMA)
    known = {row["item_id"] for row in logged}
    ids = replayed.item_ids
    rows = [row for row, item in enumerate(ids) if item not in known]
    if not logged or not rows:
        return shown
    columns = {name: pa.repeat(pa.scalar(logged[0][name], SHOWN_SCHEMA.field(name).type), len(rows)) for name in _WHOLE}
    columns |= {
        "place": pa.repeat(pa.scalar(-1, pa.int32()), len(rows)),
        "item_id": pa.array([ids[row] for row in rows], pa.string()),
        "score": pa.array(replayed.candidates.scores[rows], pa.float32()),
        "features": _lists(replayed.vectors, rows),
    }
    return pa.concat_tables([shown, pa.table({name: columns[name] for name in SHOWN_SCHEMA.names}, SHOWN_SCHEMA)])


def _lists(vectors: Float32s | None, rows: Sequence[int]) -> pa.Array:
    """list<float32> [rows]."""
    if vectors is None:
        return pa.nulls(len(rows), SHOWN_SCHEMA.field("features").type)
    chosen = np.ascontiguousarray(vectors[rows])
    ends = np.arange(len(rows) + 1, dtype=np.int32) * chosen.shape[1]
    return pa.ListArray.from_arrays(ends, pa.array(chosen.ravel()))


def _write(tables: Sequence[pa.Table], out: Storage, path: str) -> None:
    table = pa.concat_tables(tables) if tables else SHOWN_SCHEMA.empty_table()
    with out.open(path, "wb") as file:
        pq.write_table(table, file, compression="zstd")
