"""parse: a source's events as clean columns with the ids that the data gave them: the way in for whoever wants no dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from spark_jobs.ingest.cleaning import Clean, clean
from spark_jobs.ingest.inputs import Advance
from spark_jobs.ingest.plan import Plan
from spark_jobs.ingest.rows import Int64s, Rows

TIMELESS_START = datetime(2000, 1, 1, tzinfo=UTC)
"""Data without times (`--map time=none`): its rows stand one second apart from here on, in the order of files and lines."""

_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of one file and what is clean of them. file_number: the file's place among the plan's events."""

    file_number: int
    rows: Rows
    clean: Clean


def batches(plan: Plan, *, now: datetime, advance: Advance = lambda n: None) -> Iterator[Batch]:
    """All events, in the order of files and lines. Memory holds one batch: some hundred thousand rows."""
    rows_before = 0
    for number, table in enumerate(plan.events):
        for rows in table.rows(advance=advance):
            times_us = _by_order(rows_before, len(rows)) if plan.timeless else None
            yield Batch(number, rows, clean(rows, now=now, default_type=table.default_type, times_us=times_us))
            rows_before += len(rows)


def _by_order(first: int, n_rows: int) -> Int64s:
    start = round(TIMELESS_START.timestamp()) * _SECOND_US
    return start + np.arange(first, first + n_rows, dtype=np.int64) * _SECOND_US
