"""One small world on disk for the tests that look at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from infra.local.world.generate import generate
from infra.local.world.oracle import Oracle
from infra.local.world.size import WorldSize


@dataclass(frozen=True)
class Written:
    """A world and its tables. events: in the order of time, with `day` counted from the start."""

    folder: Path
    size: WorldSize
    events: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    oracle: Oracle


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("world") / "w"
    size = WorldSize(users=400, items=600, events=40_000, seed=7, days=28)
    generate(size, folder)
    events = pq.read_table(folder / "events").to_pandas().sort_values("event_time", kind="stable", ignore_index=True)
    events["day"] = (events.event_time - pd.Timestamp(size.start)).dt.total_seconds() / 86_400
    items, users = (pq.read_table(folder / f"{name}.parquet").to_pandas() for name in ("items", "users"))
    return Written(folder, size, events, items, users, Oracle.open(folder))
