"""side: what a source knows of items and users beside their events, and the dataset's two tables that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.ingest import movielens, times
from spark_jobs.ingest.cleaning import keys_of, numbers_of, text_of
from spark_jobs.ingest.indexer import Indexer
from spark_jobs.ingest.inputs import Advance
from spark_jobs.ingest.jsonlines import LIST_MARK, UNUSABLE
from spark_jobs.ingest.rejects import Rejects
from spark_jobs.ingest.rows import Int64s, Reason, Rows
from spark_jobs.ingest.tables import Table

ITEMS_SCHEMA = pa.schema(
    {
        "item_index": pa.int32(),
        "item_id": pa.string(),
        "title": pa.string(),
        "genres": pa.list_(pa.string()),
        "creator": pa.string(),
        "first_seen": pa.timestamp("us", "UTC"),
    }
)
USERS_SCHEMA = pa.schema(
    {
        "user_index": pa.int32(),
        "user_id": pa.string(),
        "age_years": pa.float32(),
        "gender": pa.string(),
        "country": pa.string(),
        "n_events": pa.int32(),
    }
)

NEVER_US = np.iinfo(np.int64).max
"""Stands for `no event yet` among times."""

_OLDEST_YEARS = 130.0


@dataclass
class Items:
    """Columns of the side table's usable rows; row i is item i, for they are numbered first."""

    titles: list[str | None] = field(default_factory=list)
    genres: list[list[str]] = field(default_factory=list)
    creators: list[str | None] = field(default_factory=list)
    first_seen_us: list[int] = field(default_factory=list)

    def table(self, names: list[str], first_event_us: Int64s) -> pa.Table:
        """All items. Without a title it is the id; first_seen is the earlier of what the table says and the first event, if any."""
        missing = len(names) - len(self.titles)
        told = np.array(self.first_seen_us + [NEVER_US] * missing, np.int64)
        first = np.minimum(told, first_event_us)
        titles = [title or name for title, name in zip(self.titles + [None] * missing, names, strict=True)]
        return pa.table(
            [
                pa.array(np.arange(len(names)), pa.int32()),
                pa.array(names, pa.string()),
                pa.array(titles, pa.string()),
                pa.array(self.genres + [[]] * missing, pa.list_(pa.string())),
                pa.array(self.creators + [None] * missing, pa.string()),
                pa.array(first, pa.timestamp("us", "UTC"), mask=first == NEVER_US),
            ],
            schema=ITEMS_SCHEMA,
        )


@dataclass
class Users:
    """Columns of the side table's usable rows; row i is user i."""

    ages: list[float] = field(default_factory=list)
    genders: list[str | None] = field(default_factory=list)
    countries: list[str | None] = field(default_factory=list)

    def table(self, names: list[str], n_events: NDArray[np.int64]) -> pa.Table:
        """All users; what nobody told is NaN or null."""
        missing = len(names) - len(self.ages)
        return pa.table(
            [
                pa.array(np.arange(len(names)), pa.int32()),
                pa.array(names, pa.string()),
                pa.array(self.ages + [np.nan] * missing, pa.float32()),
                pa.array(self.genders + [None] * missing, pa.string()),
                pa.array(self.countries + [None] * missing, pa.string()),
                pa.array(n_events, pa.int32()),
            ],
            schema=USERS_SCHEMA,
        )


def read_items(
    table: Table | None, indexer: Indexer, rejects: Rejects, *, movies: bool, now: datetime, advance: Advance
) -> tuple[Items, int]:
    """The items and how many rows were looked at. movies: titles and genres are written as MovieLens does."""
    items = Items()

    def take(rows: Rows, kept: list[int]) -> None:
        titles = _texts(rows, "title", kept)
        items.titles += [movielens.title_of(title) if movies and title else title for title in titles]
        items.genres += _genres(rows, kept)
        items.creators += _texts(rows, "creator", kept)
        items.first_seen_us += _moments(rows, "first_seen", kept, now)

    return items, _read(table, "item_id", indexer, rejects, take, advance)


def read_users(
    table: Table | None, indexer: Indexer, rejects: Rejects, *, movies: bool, advance: Advance
) -> tuple[Users, int]:
    """The users and how many rows were looked at. Ages beyond 0 to 130 are unknown ages."""
    users = Users()

    def take(rows: Rows, kept: list[int]) -> None:
        ages = _ages(rows, kept)
        users.ages += [movielens.age_of(age) for age in ages] if movies else ages
        users.genders += _texts(rows, "gender", kept)
        users.countries += _texts(rows, "country", kept)

    return users, _read(table, "user_id", indexer, rejects, take, advance)


def _read(
    table: Table | None,
    key: str,
    indexer: Indexer,
    rejects: Rejects,
    take: Callable[[Rows, list[int]], None],
    advance: Advance,
) -> int:
    looked_at = 0
    for rows in table.rows(advance=advance) if table else ():
        looked_at += len(rows) + len(rows.faults)
        for fault in rows.faults:
            rejects.add(rows.file, fault.line, fault.reason, fault.text)
        ids, usable, rejected = keys_of(rows, key)
        for at, reason in rejected:
            rejects.add(rows.file, int(rows.lines[at]), reason, rows.text(at))
        kept = []
        for at, name in enumerate(ids.to_pylist()):
            if usable[at] and indexer.is_new(name):
                kept.append(at)
            elif usable[at]:
                rejects.add(rows.file, int(rows.lines[at]), Reason.DUPLICATE, rows.text(at))
        take(rows, kept)
    return looked_at


def _texts(rows: Rows, name: str, kept: list[int]) -> list[str | None]:
    if name not in rows.columns:
        return [None] * len(kept)
    texts = text_of(rows, name)[0].to_pylist()
    return [texts[at] if texts[at] != UNUSABLE and texts[at] else None for at in kept]


def _genres(rows: Rows, kept: list[int]) -> list[list[str]]:
    """Lists as they are; text is split at `|`."""
    if "is Action" in rows.columns:
        flags = {name: column.to_pylist() for name, column in rows.columns.items() if name.startswith("is ")}
        lists = movielens.genres_of_flags(flags, len(rows))
    elif "genres" not in rows.columns:
        return [[] for _ in kept]
    elif pa.types.is_list(rows.columns["genres"].type):
        lists = [value or [] for value in rows.columns["genres"].cast(pa.list_(pa.string())).to_pylist()]
    else:
        texts = text_of(rows, "genres")[0].to_pylist()
        lists = [[] if not text or text in (UNUSABLE, movielens.NO_GENRES) else text.split(LIST_MARK) for text in texts]
    return [[genre.strip() for genre in lists[at] if genre and genre.strip()] for at in kept]


def _moments(rows: Rows, name: str, kept: list[int], now: datetime) -> list[int]:
    if name not in rows.columns:
        return [NEVER_US] * len(kept)
    try:
        found, known = times.micros(rows.columns[name])
    except TypeError:
        return [NEVER_US] * len(kept)
    usable = known & (found >= 0) & (found <= now.timestamp() * 1e6)
    return [int(found[at]) if usable[at] else NEVER_US for at in kept]


def _ages(rows: Rows, kept: list[int]) -> list[float]:
    if "age_years" not in rows.columns:
        return [np.nan] * len(kept)
    column = rows.columns["age_years"]
    numbers = numbers_of(column)[0] if pa.types.is_string(column.type) else pc.cast(column, pa.float64(), safe=False)
    ages = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return [float(ages[at]) if 0 < ages[at] <= _OLDEST_YEARS else np.nan for at in kept]
