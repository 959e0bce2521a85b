"""An importer on a fresh store: give it files, get the sealed dataset back as tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.contracts.ids import ApplicationName
from infra.snapshots.storage import Storage
from spark_jobs.ingest.columns import parse_mapping
from spark_jobs.ingest.job import Imported, ImportOptions, ingest

NOW = datetime(2024, 6, 1, tzinfo=UTC)
RANKING = ApplicationName("ranking")


@dataclass(frozen=True)
class Dataset:
    """What consumers of a sealed dataset see."""

    done: Imported
    record: dict[str, object]
    events: pa.Table
    items: pa.Table
    users: pa.Table
    rejects: list[dict[str, object]]

    def rows(self) -> list[tuple[str, str, str, str, float | None]]:
        """Events with ids: user, item, time, type, value; sorted."""
        users, items = self.users["user_id"].to_pylist(), self.items["item_id"].to_pylist()
        return sorted(
            (
                users[row["user_index"]],
                items[row["item_index"]],
                row["event_time"].isoformat(),
                row["event_type"],
                None if row["value"] != row["value"] else row["value"],
            )
            for row in self.events.to_pylist()
        )

    def reasons(self) -> list[tuple[str, int, str]]:
        """File, line and reason of every reject, in order of lines."""
        return sorted((str(row["file"]), int(str(row["line"])), str(row["reason"])) for row in self.rejects)


@dataclass(frozen=True)
class Importer:
    """A store and a home of its own."""

    store: str
    home: Path

    @property
    def datasets(self) -> Storage:
        """Where sealed datasets lie."""
        return Storage(f"{self.store}/ranking/datasets")

    def run(self, source: Path | str, *, map: str = "", format: str = "auto", allowed: float = 0.0) -> Dataset:
        """Import and read back."""
        options = ImportOptions(RANKING, str(source), self.home, NOW, format, parse_mapping(map), allowed)
        done = ingest(self.store, options)
        storage = self.datasets.below(done.dataset)
        events = pa.concat_tables(_table(storage, n) for n in storage.files("events") if n.endswith(".parquet"))
        return Dataset(
            done,
            json.loads(storage.read("dataset.json")),
            events.set_column(3, "event_type", events["event_type"].cast(pa.string())),
            _table(storage, "items.parquet"),
            _table(storage, "users.parquet"),
            [json.loads(line) for line in storage.read("rejects.jsonl").splitlines()],
        )


def _table(storage: Storage, name: str) -> pa.Table:
    with storage.open(name) as file:
        return pq.read_table(file)


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    return Importer(str(tmp_path / "store"), tmp_path / "home")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file below a source folder; returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file
