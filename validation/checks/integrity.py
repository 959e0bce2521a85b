"""integrity: the files are those that the manifest promises, and the manifest is one that this code can serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import great_expectations.expectations as gxe
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.catalog.features.ranking import ITEM_FEATURES
from infra.config import console
from infra.contracts.errors import SnapshotError
from infra.contracts.snapshots import Manifest
from infra.snapshots import tables
from infra.snapshots.chunks import read_chunks, spans_of
from infra.snapshots.storage import Storage
from infra.snapshots.versions import Version
from validation.case import Case
from validation.check import MAX_EXAMPLES, Check, Figures, Requirement, Whole

Columns = Mapping[str, tuple[str, Callable[[pa.Field], bool]]]
"""Of each column a table must have: what it is, in words, and whether a field is that."""


def _exactly(schema: pa.Schema) -> Columns:
    """Types and nullability: these are read as they lie, byte by byte."""
    return {field.name: (_text(field), partial(_is_field, wanted=field)) for field in schema}


def _is_field(seen: pa.Field, *, wanted: pa.Field) -> bool:
    return bool(seen.type == wanted.type and seen.nullable == wanted.nullable)


def _text(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"


def _kinds(**wanted: str) -> Columns:
    """Kinds of types: a table that Spark wrote may have wider strings and nullable columns."""
    return {name: (kind, partial(_is_kind, kind=kind)) for name, kind in wanted.items()}


def _is_kind(seen: pa.Field, *, kind: str) -> bool:
    return _KINDS[kind](seen.type)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


_KINDS: Mapping[str, Callable[[pa.DataType], bool]] = {
    "integers": pa.types.is_integer,
    "numbers": pa.types.is_floating,
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "text or nothing": lambda kind: (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    ),
    "lists": _is_list,
    "lists of numbers": lambda kind: _is_list(kind) and pa.types.is_floating(kind.value_type),
}

_COLUMNS: Mapping[str, Columns] = {
    tables.CANDIDATES: _exactly(tables.CANDIDATES_SCHEMA),
    tables.POPULAR: _kinds(list="text", rank="integers", item_index="integers", score="numbers"),
    tables.ITEM_TABLE: {
        **_kinds(
            item_index="integers", item_id="text", title="text or nothing", genres="lists", creator="text or nothing"
        ),
        **_kinds(**dict.fromkeys(ITEM_FEATURES, "numbers")),
    },
    tables.USER_VECTORS: _kinds(user_index="integers", vector="lists of numbers"),
    tables.ITEM_VECTORS: _kinds(item_index="integers", vector="lists of numbers"),
    tables.CHUNKS: _exactly(tables.CHUNKS_SCHEMA),
}

PARTS = (*_COLUMNS, tables.RANKER)
"""What a snapshot must have."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """The features that the running code has: their hash and their orders."""

    hash: str
    user_features: tuple[str, ...]
    item_features: tuple[str, ...]
    ranker_features: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Integrity(Check):
    """Made first: nothing can be said about a snapshot whose bytes are not those that were sealed."""

    name = "integrity"
    title = "Sealed files, known definitions"
    definition: Definition

    def measure(self, case: Case) -> Figures:
        return {f"integrity_{name}": float(len(problems)) for name, problems in self._problems(case).items()}

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        n_files = sum(len(part.files) for part in case.manifest.parts.values())
        wanted = {
            "files": f"each of {n_files} files with the digest that the manifest promises",
            "tables": "rows and columns that the manifest and the schema promise",
            "definition": f"the features of this code (definition {self.definition.hash})",
        }
        sound = {
            "files": f"{n_files} files as sealed",
            "tables": f"{case.manifest.counts.get('users', 0):,} users, {case.manifest.counts.get('items', 0):,} items",
            "definition": "features as here",
        }
        return tuple(
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column=f"integrity_{name}", max_value=0),
                self.severity,
                wanted=wanted[name],
                seen=f"{len(problems)} that {'is' if len(problems) == 1 else 'are'} not so"
                if problems
                else sound[name],
                examples=tuple(problems[:MAX_EXAMPLES]),
            )
            for name, problems in self._problems(case).items()
        )

    def _problems(self, case: Case) -> Mapping[str, list[str]]:
        return case.once(self.name, lambda: self._look(case))

    def _look(self, case: Case) -> Mapping[str, list[str]]:
        manifest, storage = case.manifest, case.version.storage
        files = [f"the manifest has no part {name!r}" for name in PARTS if name not in manifest.parts]
        files += _changed_files(manifest, storage)
        return {
            "files": files,
            "tables": [] if files else _wrong_tables(manifest, case.version),
            "definition": self._other_definition(manifest, case.version),
        }

    def _other_definition(self, manifest: Manifest, version: Version) -> list[str]:
        wanted = self.definition
        of_this = (manifest.application, manifest.version) == (version.application, version.version)
        pairs = {
            "definition_hash": (manifest.definition_hash, wanted.hash),
            "the order of user features": (manifest.user_feature_order, wanted.user_features),
            "the order of item features": (manifest.item_feature_order, wanted.item_features),
            "the ranker's order of features": (manifest.ranker.feature_order, wanted.ranker_features),
        }
        found = (
            [] if of_this else [f"the manifest is of {manifest.application}/{manifest.version}, here {version.label}"]
        )
        found += [
            f"{what} is {_short(seen)}, here {_short(here)}" for what, (seen, here) in pairs.items() if seen != here
        ]
        if manifest.ranker.part not in manifest.parts:
            found.append(f"the ranker's part {manifest.ranker.part!r} is not in the manifest")
        elif len(manifest.parts[manifest.ranker.part].files) != 1:
            n_files = len(manifest.parts[manifest.ranker.part].files)
            found.append(f"the ranker's part {manifest.ranker.part!r} has {n_files} files, wanted one")
        if not (np.isfinite(manifest.score_scale) and manifest.score_scale > 0):
            found.append(f"the score scale is {manifest.score_scale}")
        return found


def _short(value: Sequence[str]) -> str:
    return value if isinstance(value, str) else ",".join(value)[:80]


def _changed_files(manifest: Manifest, storage: Storage) -> list[str]:
    found = []
    with console.progress("digests", total=sum(len(part.files) for part in manifest.parts.values())) as advance:
        for part in manifest.parts.values():
            for name, wanted in part.files.items():
                advance(1)
                if not storage.exists(name):
                    found.append(f"{name} is missing")
                    continue
                seen = storage.sha256(name)
                if seen != wanted:
                    found.append(f"{name} has digest {seen[:12]}, promised {wanted[:12]}")
    return found


def _wrong_tables(manifest: Manifest, version: Version) -> list[str]:
    storage = version.storage
    found = []
    rows = {}
    for name, wanted in _COLUMNS.items():
        part = manifest.parts[name]
        rows[name] = 0
        for file_name in part.files:
            try:
                with storage.open(file_name) as file:
                    parquet = pq.ParquetFile(file)
                    rows[name] += parquet.metadata.num_rows
                    found += [f"{file_name}: {problem}" for problem in _wrong_columns(parquet.schema_arrow, wanted)]
            except pa.ArrowInvalid as error:
                found.append(f"{file_name} is not Parquet: {str(error).splitlines()[0]}")
        if rows[name] != part.rows:
            found.append(f"part {name} has {rows[name]:,} rows, promised {part.rows:,}")
    for count, name in (("users", tables.CANDIDATES), ("items", tables.ITEM_TABLE), ("items", tables.ITEM_VECTORS)):
        if manifest.counts.get(count) != rows[name]:
            found.append(
                f"the manifest counts {manifest.counts.get(count)} {count}, part {name} has {rows[name]:,} rows"
            )
    if not found:
        found += (
            _wrong_items(manifest, storage) + _wrong_projection(manifest, storage) + _wrong_chunks(manifest, version)
        )
    return found


def _wrong_columns(schema: pa.Schema, wanted: Columns) -> list[str]:
    found = []
    for name, (what, fits) in wanted.items():
        at = schema.get_field_index(name)
        if at < 0:
            found.append(f"there is no column {name}, wanted {what}")
        elif not fits(schema.field(at)):
            found.append(f"column {name} is {_text(schema.field(at))}, wanted {what}")
    return found


def _wrong_items(manifest: Manifest, storage: Storage) -> list[str]:
    """The item table's index must be 0..n-1 and its ids distinct: an index is an item's only name inside a snapshot.

    A number that is not known is NaN, never null and never infinite.
    """
    parts = []
    for name in sorted(manifest.parts[tables.ITEM_TABLE].files):
        with storage.open(name) as file:
            parts.append(pq.read_table(file, columns=["item_index", "item_id", *ITEM_FEATURES]))
    table = pa.concat_tables(parts)
    index = np.sort(table["item_index"].to_numpy())
    found = []
    if not np.array_equal(index, np.arange(len(index))):
        found.append(f"the item table's indexes are not 0 to {len(index) - 1:,}, each once")
    found += [
        f"column {name} of the item table has {table[name].null_count:,} nulls"
        for name in table.column_names
        if table[name].null_count
    ]
    infinite = {name: int(np.isinf(table[name].to_numpy()).sum()) for name in ITEM_FEATURES}
    found += [f"column {name} of the item table has {n:,} infinite values" for name, n in infinite.items() if n]
    repeated = len(index) - len(table["item_id"].unique())
    if repeated:
        found.append(f"{repeated:,} rows of the item table repeat another row's item_id")
    return found


def _wrong_projection(manifest: Manifest, storage: Storage) -> list[str]:
    """What makes a user's vector of item vectors must be numbers; snapshots of an earlier code have none."""
    parts = []
    for name in sorted(manifest.parts[tables.ITEM_VECTORS].files):
        with storage.open(name) as file:
            parquet = pq.ParquetFile(file)
            wanted = [name for name in parquet.schema_arrow.names if name == tables.USER_WEIGHT]
            parts.append(parquet.read(columns=wanted))
    try:
        tables.user_projection(pa.concat_tables(parts))
    except SnapshotError as error:
        return [str(error)]
    return []


def _wrong_chunks(manifest: Manifest, version: Version) -> list[str]:
    """The digests of what Redis must hold are those of all users, each once, under the manifest's root.

    Whether they are those of the files' rows is seen by the load, which compares every one of them.
    """
    try:
        chunks = read_chunks(version, manifest)
    except SnapshotError as error:
        return [str(error)]
    seen = [(chunk.file, chunk.first_row, chunk.users) for chunk in chunks]
    wanted = [
        (span.file, span.first_row, span.users)
        for span in spans_of(version.storage, list(manifest.parts[tables.CANDIDATES].files))
    ]
    return [] if seen == wanted else [f"the {len(seen):,} chunks of records are not those of the users' rows"]
