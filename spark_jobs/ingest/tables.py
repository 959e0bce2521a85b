"""tables: one input file and how to read it, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from spark_jobs.ingest import columnar, delimited, jsonlines
from spark_jobs.ingest.columns import TYPE_WITHOUT_COLUMN
from spark_jobs.ingest.delimited import Layout
from spark_jobs.ingest.inputs import Advance, InputFile
from spark_jobs.ingest.rows import Rows

Kind = Literal["delimited", "jsonl", "parquet"]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".dat", ".data"), "delimited"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}


@dataclass(frozen=True, slots=True)
class Table:
    """names: field -> column name (JSONL, Parquet). positions: field -> position (delimited, with its layout).

    default_type: what its events are called where no column says it.
    """

    file: InputFile
    kind: Kind
    names: dict[str, str] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    layout: Layout | None = None
    default_type: str = TYPE_WITHOUT_COLUMN

    @property
    def fields(self) -> dict[str, str]:
        """field -> the column as a person would name it."""
        return self.names or {name: str(at + 1) for name, at in self.positions.items()}

    def rows(self, *, advance: Advance = lambda n: None) -> Iterator[Rows]:
        """The file from its beginning to its end."""
        if self.kind == "parquet":
            return columnar.read(self.file, self.names, advance=advance)
        if self.kind == "jsonl":
            return jsonlines.read(self.file, self.names, advance=advance)
        if self.layout is None:
            raise ValueError("a delimited table needs a layout")
        return delimited.read(self.file, self.layout, self.positions, advance=advance)


def kind_of(file: InputFile) -> Kind | None:
    """By the file's ending; None for one that says nothing."""
    return _KINDS.get(file.suffix)
