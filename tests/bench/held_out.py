"""held_out: a snapshot as of an earlier moment, built by the batch's own commands, and what users did after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bentos.ranking.query import PLAN
from infra.catalog.applications.ranking import RANKING
from infra.contracts.errors import OperatorError
from infra.contracts.events import Record
from infra.contracts.features import BOARD, Deltas
from infra.nearline.boards import Board, ShardBoard, merged_board
from infra.snapshots.versions import SnapshotStore, Version

_HOUR_US = 3_600_000_000
_STEPS = ("embeddings", "candidates", "training", "publish")


@dataclass(frozen=True, slots=True)
class Later:
    """Events, times rising. users, items: ids; types: event types; times_us: int64, microseconds since 1970."""

    users: NDArray[np.object_]
    items: NDArray[np.object_]
    types: NDArray[np.object_]
    times_us: NDArray[np.int64]

    @classmethod
    def of(cls, table: pa.Table) -> Later:
        """A table of user_id, item_id, event_type and event_time (timestamp[us])."""
        table = table.sort_by("event_time")
        users, items, types = (
            table[name].to_numpy(zero_copy_only=False) for name in ("user_id", "item_id", "event_type")
        )
        return cls(users, items, types, table["event_time"].cast(pa.int64()).to_numpy())

    def records(self, rows: Sequence[int] | NDArray[np.integer], kind: str) -> Iterator[Record]:
        """What the log would hold of them, for the entity of that kind."""
        for row in rows:
            user, item = str(self.users[row]), str(self.items[row])
            name = user if kind == "user" else item
            values: dict[str, str | int | float] = {"user_id": user, "item_id": item}
            yield Record(kind, name, str(self.types[row]), int(self.times_us[row]), str(row), values)

    def board(self, now_us: int) -> Board:
        """What many took in the hour before a moment."""
        rows = np.arange(*np.searchsorted(self.times_us, (now_us - _HOUR_US, now_us)))
        deltas: Deltas = {}
        PLAN.accumulate(self.records(rows, "item"), deltas)
        return merged_board(PLAN, "item", [ShardBoard(0, deltas.get(("item", BOARD), {}), {})], now_us)


@dataclass(frozen=True, slots=True)
class Moment:
    """One request to judge by. wanted: item ids that the user took from then on until the window's end, none of them before."""

    user_id: str
    now_us: int
    state: dict[str, int]
    wanted: frozenset[str]


def moments(later: Later, *, cut_us: int, until_us: int, users: Sequence[str], seed: int) -> list[Moment]:
    """One a user who took something in the window: just before one of the things that he took, drawn evenly, the first included."""
    rng = np.random.default_rng(seed)
    rows_of: dict[str, list[int]] = {}
    for row, user in enumerate(later.users.tolist()):
        rows_of.setdefault(user, []).append(row)
    out = []
    for user in users:
        rows = np.array(rows_of.get(user, []), np.int64)
        times = later.times_us[rows]
        gains = np.array([RANKING.gain(str(later.types[row])) for row in rows], np.int64)
        taking = rows[(gains > 0) & (times >= cut_us) & (times < until_us)]
        if not len(taking):
            continue
        now_us = int(later.times_us[rng.choice(taking)]) - 1
        before, after = rows[times <= now_us], taking[later.times_us[taking] > now_us]
        known = {str(item) for item in later.items[before]}
        wanted = frozenset(str(item) for item in later.items[after]) - known
        if wanted:
            deltas: Deltas = {}
            PLAN.accumulate(later.records(before, "user"), deltas)
            out.append(Moment(user, now_us, deltas.get(("user", user), {}), wanted))
    return out


def build(
    source: Path, folder: Path, *, options: Sequence[str] = (), settings: dict[str, str] | None = None
) -> Version:
    """Import a source and run the batch's steps on it, each as the command that Airflow runs. Raises OperatorError."""
    environment = {
        **os.environ,
        "HEADGATE_HOME": str(folder),
        "HEADGATE_STORE": str(folder / "store"),
        **(settings or {}),
    }
    which = ["--application", RANKING.name]
    imported = _run(["spark_jobs.ingest", *which, "--source", str(source), *options], environment)
    version = SnapshotStore(str(folder / "store"), RANKING.name).allocate(generation=0, actor="bench")
    for step in _STEPS:
        extra = ["--dataset", str(imported["dataset"])] if step == "embeddings" else []
        _run([f"spark_jobs.{step}", *which, "--version", version.version, *extra], environment)
    return version


def _run(command: list[str], environment: dict[str, str]) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OperatorError(f"python -m {' '.join(command)} failed: {done.stderr[-2000:]}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def split(events: pa.Table, *, cut: datetime) -> tuple[pa.Table, pa.Table]:
    """Events before a moment, and those from it on."""
    before = pc.less(events["event_time"], pa.scalar(cut.astimezone(UTC), events.schema.field("event_time").type))
    return events.filter(before), events.filter(pc.invert(before))


def world_events(world: Path) -> pa.Table:
    """All of a generated world's events."""
    return pa.concat_tables([pq.read_table(file) for file in sorted((world / "events").iterdir())])
