"""workplace: the importer's folder on the local disk: room is checked before, and nothing stays behind, not even after kill -9."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.contracts.errors import NotEnoughRoom
from infra.snapshots.storage import Storage
from spark_jobs.ingest import columnar
from spark_jobs.ingest.plan import Plan
from spark_jobs.ingest.spill import EVENT

_PREFIX = "ingest-"
_STORED_EVENT_BYTES = 16
_TEXT_EVENT_BYTES = 20
_PACKING = 4
"""Guesses, on the safe side: bytes of an event in the dataset, of a line of text, and how much gzip shrinks it."""


def events_at_most(plan: Plan) -> int:
    """About how many events the source holds: Parquet says it, text is guessed from its bytes."""
    total = 0
    for table in plan.events:
        if table.kind == "parquet":
            total += columnar.row_count(table.file)
        else:
            total += table.file.size_bytes * (_PACKING if table.file.packed else 1) // _TEXT_EVENT_BYTES
    return total


def check_room(plan: Plan, home: Path, store: Storage) -> None:
    """Raise NotEnoughRoom before anything is written where the disk would not hold spilled events and dataset."""
    events, side = events_at_most(plan), plan.size_bytes
    here = events * (EVENT.itemsize + _STORED_EVENT_BYTES) + side
    there = events * _STORED_EVENT_BYTES + side
    places = [(home, here)]
    if store.is_local:
        places.append((_existing(Path(store.full())), there))
    same = len(places) > 1 and _existing(home).stat().st_dev == places[1][0].stat().st_dev
    for path, needed in [(home, here + there)] if same else places:
        free = shutil.disk_usage(_existing(path)).free
        if needed > free:
            raise NotEnoughRoom(
                f"An import of about {events:,} events needs {needed / 1e9:.1f} GB at {path}; {free / 1e9:.1f} GB are free.",
                mend="Free some, or point HEADGATE_HOME and HEADGATE_STORE to a larger disk.",
            )


@contextmanager
def workplace(home: Path) -> Iterator[Path]:
    """A folder below home/tmp that is removed at the end; those of importers that were killed are removed at the start."""
    parent = home / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_PREFIX}*"):
        if not _runs(left.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
