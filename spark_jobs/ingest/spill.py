"""spill: events parted by user into buckets on the local disk, then sorted bucket by bucket and written as Parquet.

Memory holds one file's worth of events, however many there are; all events of a user meet in one bucket, so that a duplicate is
found where it is sorted next to its twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spark_jobs.ingest.side import NEVER_US

EVENT = np.dtype(
    [
        ("user", "<i4"),
        ("item", "<i4"),
        ("time_us", "<i8"),
        ("type", "<i4"),
        ("value", "<f4"),
        ("file", "<i4"),
        ("line", "<i8"),
    ]
)
"""One spilled event: indexes, and where it stood in the source."""

EVENTS_SCHEMA = pa.schema(
    {
        "user_index": pa.int32(),
        "item_index": pa.int32(),
        "event_time": pa.timestamp("us", "UTC"),
        "event_type": pa.dictionary(pa.int32(), pa.string()),
        "value": pa.float32(),
    }
)

N_BUCKETS = 64
FILE_ROWS = 1_000_000
_ROW_GROUP = 131_072

Events = NDArray[np.void]


class Spill:
    """Add events in any order, then take them back sorted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._paths = [folder / f"{number:03d}.events" for number in range(N_BUCKETS)]
        self._rows = np.zeros(N_BUCKETS, np.int64)
        self._stack = ExitStack()
        self._files: list[IO[bytes]] = [self._stack.enter_context(path.open("wb")) for path in self._paths]

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, events: Events) -> None:
        """Part them by user and append them to their buckets."""
        bucket = (events["user"] % N_BUCKETS).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")
        counts = np.bincount(bucket, minlength=N_BUCKETS)
        ends = np.cumsum(counts)
        parted = events[order]
        for number in np.flatnonzero(counts).tolist():
            self._files[number].write(parted[ends[number] - counts[number] : ends[number]].tobytes())
        self._rows += counts

    def groups(self, *, file_rows: int = FILE_ROWS) -> Iterator[Events]:
        """Whole buckets, as many as make a file of that many events, by user, time, item, type and place in the source."""
        for file in self._files:
            file.flush()
        group: list[int] = []
        for number in range(N_BUCKETS):
            group.append(number)
            if self._rows[group].sum() >= file_rows or number == N_BUCKETS - 1:
                events = np.concatenate([np.fromfile(self._paths[at], EVENT) for at in group])
                for at in group:
                    self._paths[at].unlink()
                group = []
                if len(events):
                    yield events[_order(events)]


def _order(events: Events) -> NDArray[np.int64]:
    """By user, time, item and type; stable, so that equal events stay in the order of the source (a user has one bucket)."""
    item_and_type = events["item"].astype(np.int64) << 32 | events["type"]
    return np.lexsort([item_and_type, events["time_us"], events["user"]])


@dataclass
class Written:
    """What `write_events` saw.

    first_event_us: int64 [items], NEVER_US without one; n_events: int64 [users]; types: int64 [types].
    """

    first_event_us: NDArray[np.int64]
    n_events: NDArray[np.int64]
    types: NDArray[np.int64]
    first_us: int = NEVER_US
    last_us: int = 0
    files: list[str] = field(default_factory=list)

    @property
    def events(self) -> int:
        """All that were written."""
        return int(self.n_events.sum())


def write_events(
    spill: Spill,
    out: Path,
    *,
    n_users: int,
    n_items: int,
    types: list[str],
    on_duplicates: Callable[[Events], None],
    advance: Callable[[int], None],
    file_rows: int = FILE_ROWS,
) -> Written:
    """events/part-NNNNN.parquet below `out`, without duplicates: of equal events the one that stood first in the source stays."""
    written = Written(np.full(n_items, NEVER_US), np.zeros(n_users, np.int64), np.zeros(len(types), np.int64))
    (out / "events").mkdir(parents=True)
    names = pa.array(types, pa.string())
    for number, events in enumerate(spill.groups(file_rows=file_rows)):
        again = np.ones(len(events), bool)
        again[0] = False
        for name in ("user", "time_us", "item", "type"):
            again[1:] &= events[name][1:] == events[name][:-1]
        if again.any():
            on_duplicates(events[again])
            events = events[~again]
        np.minimum.at(written.first_event_us, events["item"], events["time_us"])
        written.n_events += np.bincount(events["user"], minlength=n_users)
        written.types += np.bincount(events["type"], minlength=len(types))
        written.first_us = min(written.first_us, int(events["time_us"].min()))
        written.last_us = max(written.last_us, int(events["time_us"].max()))
        name = f"events/part-{number:05d}.parquet"
        pq.write_table(_table(events, names), out / name, row_group_size=_ROW_GROUP, use_dictionary=["event_type"])
        written.files.append(name)
        advance(len(events) + int(again.sum()))
    return written


def _table(events: Events, names: pa.Array) -> pa.Table:
    columns = [
        pa.array(np.ascontiguousarray(events["user"])),
        pa.array(np.ascontiguousarray(events["item"])),
        pa.array(np.ascontiguousarray(events["time_us"])).cast(pa.timestamp("us", "UTC")),
        pa.DictionaryArray.from_arrays(pa.array(np.ascontiguousarray(events["type"])), names),
        pa.array(np.ascontiguousarray(events["value"])),
    ]
    return pa.Table.from_arrays(columns, schema=EVENTS_SCHEMA)
