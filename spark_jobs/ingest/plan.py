"""plan: what a source is: which of its files hold events, items and users, and which column is what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, get_args

from infra.contracts.errors import DataRefused, InvalidRequest
from spark_jobs.ingest import columnar, delimited, jsonlines, movielens
from spark_jobs.ingest.columns import (
    NO_TIME,
    event_columns,
    positions_only,
    side_columns,
    type_without_column,
)
from spark_jobs.ingest.delimited import Layout
from spark_jobs.ingest.inputs import InputFile, Source, resolve
from spark_jobs.ingest.tables import Kind, Table, kind_of

Format = Literal["auto", "movielens", "csv", "jsonl", "parquet", "world"]
FORMATS: tuple[str, ...] = get_args(Format)

ITEM_FIELDS = ("title", "genres", "creator", "first_seen")
USER_FIELDS = ("age_years", "gender", "country")

_KIND_OF_FORMAT: dict[str, Kind] = {"csv": "delimited", "jsonl": "jsonl", "parquet": "parquet"}
_FORMAT_OF_KIND = {kind: name for name, kind in _KIND_OF_FORMAT.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """events: in the order they are read. items, users: what is known of them beside their events. timeless: no column of times.

    oracle: the folder of a generated world, which keeps the truth behind it.
    """

    source: Source
    format: str
    events: tuple[Table, ...]
    items: Table | None = None
    users: Table | None = None
    timeless: bool = False
    oracle: str | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """All that is read, items and users first."""
        return tuple(table for table in (self.items, self.users) if table is not None) + self.events

    @property
    def unread(self) -> list[str]:
        """The source's other files."""
        read = {table.file.name for table in self.tables}
        return [file.name for file in self.source.files if file.name not in read]

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all that is read."""
        return sum(table.file.size_bytes for table in self.tables)


def make_plan(url: str, *, format: str = "auto", mapping: Mapping[str, str] | None = None) -> Plan:
    """Look at the source. Nothing is read but names and first lines."""
    mapping = mapping or {}
    if format not in FORMATS:
        raise InvalidRequest(f"--format is {format!r}; wanted one of {', '.join(FORMATS)}.")
    source = resolve(url)
    chosen = _recognise(source) if format == "auto" else format
    if chosen == "movielens":
        if mapping:
            raise InvalidRequest("MovieLens has known columns: --map is for csv, jsonl and parquet.")
        found = movielens.need(source)
        return Plan(source, chosen, (found.ratings,), found.movies, found.users)
    if chosen == "world":
        return _world(source)
    return _own_tables(source, chosen, mapping)


def _recognise(source: Source) -> str:
    """ratings.csv alone could be anybody's; with movies.csv beside it, or by its peculiar names, it is MovieLens."""
    if any(file.name == "world.json" for file in source.files):
        return "world"
    names = {PurePosixPath(file.name.lower()).name.removesuffix(".gz") for file in source.files}
    if {"ratings.csv", "movies.csv"} <= names or names & {"ratings.dat", "u.data"}:
        return "movielens"
    return "auto"


def _world(source: Source) -> Plan:
    if not any(file.name == "world.json" for file in source.files):
        raise DataRefused(
            f"{source.url} holds no world.json.", mend="Run: python -m infra.local.world generate --out FOLDER"
        )
    files = [file for file in source.files if file.name.startswith("events/") and file.suffix == ".parquet"]
    names = {"user": "user_id", "item": "item_id", "time": "event_time", "type": "event_type", "value": "value"}
    events = tuple(Table(file, "parquet", names=names) for file in files)
    items, users = _side(source, "items"), _side(source, "users")
    oracle = source.url if any(file.name.startswith("oracle/") for file in source.files) else None
    return Plan(source, "world", _some(events, source), _items(items), _users(users), oracle=oracle)


def _own_tables(source: Source, chosen: str, mapping: Mapping[str, str]) -> Plan:
    items = users = None
    files = list(source.files)
    if source.folder:
        items, users = _side(source, "items"), _side(source, "users")
        below = [file for file in files if file.name.startswith("events/")]
        files = below or [file for file in files if file not in (items, users)]
    kinds = {kind for file in files if (kind := kind_of(file)) is not None}
    if chosen != "auto":
        kind = _KIND_OF_FORMAT[chosen]
        files = [file for file in files if kind_of(file) == kind] if source.folder else files
    elif len(kinds) == 1:
        kind = kinds.pop()
        files = [file for file in files if kind_of(file) == kind]
    else:
        raise DataRefused(
            f"{source.url} holds files of {'several formats' if kinds else 'no format that is known by its ending'}: "
            f"{', '.join(file.name for file in files[:10])}.",
            mend="Name the --format (csv, jsonl or parquet), or a glob such as 'folder/*.csv'.",
        )
    events = _some(tuple(_event_table(file, kind, mapping) for file in files), source)
    timeless = mapping.get("time") == NO_TIME
    return Plan(source, _FORMAT_OF_KIND[kind], events, _items(items), _users(users), timeless=timeless)


def _some(events: tuple[Table, ...], source: Source) -> tuple[Table, ...]:
    if not events:
        raise DataRefused(f"{source.url} holds no file of events.", mend="Check --source and --format.")
    return events


def _side(source: Source, stem: str) -> InputFile | None:
    """A file beside the events that is called items.* or users.*."""
    return next((file for file in source.files if file.name.lower().startswith(f"{stem}.") and kind_of(file)), None)


def _items(file: InputFile | None) -> Table | None:
    return _side_table(file, "item_id", ITEM_FIELDS) if file else None


def _users(file: InputFile | None) -> Table | None:
    return _side_table(file, "user_id", USER_FIELDS) if file else None


def _event_table(file: InputFile, kind: Kind, mapping: Mapping[str, str]) -> Table:
    if kind == "delimited":
        fields, delimiter = delimited.first_record(file)
        header = not positions_only(mapping) or set(mapping.values()) <= {*fields, NO_TIME}
        names = fields if header else [str(number) for number in range(1, len(fields) + 1)]
        columns = event_columns(file.name, names, mapping)
        return Table(
            file,
            kind,
            positions={field: names.index(column) for field, column in columns.items()},
            layout=Layout(delimiter, len(fields), header),
            default_type=type_without_column(columns.get("value")),
        )
    names = _names(file, kind)
    columns = event_columns(file.name, names, mapping)
    return Table(file, kind, names=columns, default_type=type_without_column(columns.get("value")))


def _side_table(file: InputFile, key: str, others: tuple[str, ...]) -> Table:
    kind = kind_of(file) or "delimited"
    if kind == "delimited":
        fields, delimiter = delimited.first_record(file)
        columns = side_columns(file.name, fields, key=key, others=others)
        positions = {field: fields.index(column) for field, column in columns.items()}
        return Table(file, kind, positions=positions, layout=Layout(delimiter, len(fields), header=True))
    return Table(file, kind, names=side_columns(file.name, _names(file, kind), key=key, others=others))


def _names(file: InputFile, kind: Kind) -> list[str]:
    return columnar.names(file) if kind == "parquet" else jsonlines.keys(file)
