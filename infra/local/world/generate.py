"""generate: draws a world and streams it to disk, one day's file after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.contracts.errors import InvalidRequest
from infra.local.world import choice
from infra.local.world.catalogue import invent_items, invent_taste, item_ids, item_table, user_ids
from infra.local.world.oracle import write_oracle
from infra.local.world.people import invent_people, user_table
from infra.local.world.sessions import TYPES, Day, Events, World, days
from infra.local.world.size import WorldSize

FORMAT = "headgate-world/1"
_ROW_GROUP = 131_072


def invent(size: WorldSize) -> World:
    """All but the events: memory is about 320 bytes a user and 200 an item."""
    taste = invent_taste(size)
    return World(size, invent_items(size, taste), invent_people(size, taste), choice.invent_trend(size))


def generate(size: WorldSize, out: Path, *, advance: Callable[[int], None] = lambda n: None) -> None:
    """Write items.parquet, users.parquet, oracle/, events/day-NNNN.parquet and, last, world.json.

    Memory holds one day's events at most. Raises InvalidRequest where `out` already holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidRequest(f"{out} is not an empty folder.", mend="Name another --out or empty it first.")
    (out / "events").mkdir(parents=True)
    world = invent(size)
    pq.write_table(item_table(size, world.items), out / "items.parquet", row_group_size=_ROW_GROUP)
    pq.write_table(user_table(size, world.people), out / "users.parquet", row_group_size=_ROW_GROUP)
    write_oracle(world, out / "oracle")
    names = (user_ids(np.arange(size.users)), item_ids(np.arange(size.items)), pa.array(TYPES, pa.string()))
    by_genre = np.argsort(world.items.genres[:, 0], kind="stable")
    come = np.cumsum(world.people.activity, dtype=np.float64)
    for number, count in enumerate(days(size).tolist()):
        chunks = []
        for chunk in Day(world, number, by_genre=by_genre, come=come).events(count):
            chunks.append(chunk)
            advance(len(chunk.users))
        if chunks:
            _write_day(chunks, names, out / f"events/day-{number:04d}.parquet")
    record = {
        "format": FORMAT,
        **asdict(size),
        "start": size.start.isoformat(),
        "taste_dim": world.items.vectors.shape[1],
    }
    (out / "world.json").write_text(json.dumps(record, indent=1) + "\n")


def _write_day(chunks: list[Events], names: tuple[pa.Array, pa.Array, pa.Array], path: Path) -> None:
    times = np.concatenate([chunk.times_us for chunk in chunks])
    order = np.argsort(times, kind="stable")
    users, items, types = names
    table = pa.table(
        {
            "user_id": users.take(pa.array(np.concatenate([chunk.users for chunk in chunks])[order])),
            "item_id": items.take(pa.array(np.concatenate([chunk.items for chunk in chunks])[order])),
            "event_time": pa.array(times[order], pa.timestamp("us", "UTC")),
            "event_type": types.take(pa.array(np.concatenate([chunk.types for chunk in chunks])[order])),
            "value": pa.array(
                np.concatenate([chunk.values for chunk in chunks])[order], pa.float32(), from_pandas=True
            ),
        }
    )
    pq.write_table(table, path, row_group_size=_ROW_GROUP)
