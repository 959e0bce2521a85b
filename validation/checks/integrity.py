"""integrity: the files are those that the manifest promises, and the manifest is one that this code can serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.config import console
from infra.contracts.snapshots import Manifest
from infra.snapshots import tables
from infra.snapshots.storage import Storage
from validation.case import Case
from validation.check import MAX_EXAMPLES, Check, Figures, Requirement, Whole

PARTS = (
    tables.CANDIDATES,
    tables.ITEM_TABLE,
    tables.POPULAR,
    tables.USER_VECTORS,
    tables.ITEM_VECTORS,
    tables.RANKER,
)


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
        return tuple(
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column=f"integrity_{name}", max_value=0),
                self.severity,
                wanted=wanted[name],
                seen=f"{len(problems)} that {'is' if len(problems) == 1 else 'are'} not so",
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
            "tables": [] if files else _wrong_tables(manifest, storage),
            "definition": self._other_definition(manifest),
        }

    def _other_definition(self, manifest: Manifest) -> list[str]:
        wanted = self.definition
        pairs = {
            "definition_hash": (manifest.definition_hash, wanted.hash),
            "the order of user features": (manifest.user_feature_order, wanted.user_features),
            "the order of item features": (manifest.item_feature_order, wanted.item_features),
            "the ranker's order of features": (manifest.ranker.feature_order, wanted.ranker_features),
        }
        found = [
            f"{what} is {_short(seen)}, here {_short(here)}" for what, (seen, here) in pairs.items() if seen != here
        ]
        if manifest.ranker.part not in manifest.parts:
            found.append(f"the ranker's part {manifest.ranker.part!r} is not in the manifest")
        if not (np.isfinite(manifest.score_scale) and manifest.score_scale > 0):
            found.append(f"the score scale is {manifest.score_scale}")
        return found


def _short(value: str | tuple[str, ...]) -> str:
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


def _wrong_tables(manifest: Manifest, storage: Storage) -> list[str]:
    found = []
    rows = {}
    for name in PARTS:
        if name == tables.RANKER:
            continue
        part = manifest.parts[name]
        rows[name] = 0
        for file_name in part.files:
            with storage.open(file_name) as file:
                parquet = pq.ParquetFile(file)
                rows[name] += parquet.metadata.num_rows
                if name == tables.CANDIDATES:
                    found += [f"{file_name}: {problem}" for problem in _wrong_columns(parquet.schema_arrow)]
        if rows[name] != part.rows:
            found.append(f"part {name} has {rows[name]:,} rows, promised {part.rows:,}")
    for count, name in (("users", tables.CANDIDATES), ("items", tables.ITEM_TABLE), ("items", tables.ITEM_VECTORS)):
        if manifest.counts.get(count) != rows[name]:
            found.append(
                f"the manifest counts {manifest.counts.get(count)} {count}, part {name} has {rows[name]:,} rows"
            )
    if not found:
        found += _wrong_items(manifest, storage)
    return found


def _wrong_columns(schema: pa.Schema) -> list[str]:
    found = []
    for wanted in tables.CANDIDATES_SCHEMA:
        at = schema.get_field_index(wanted.name)
        seen = "nothing" if at < 0 else str(schema.field(at))
        if seen != str(wanted):
            found.append(f"column {seen}, wanted {wanted}")
    return found


def _wrong_items(manifest: Manifest, storage: Storage) -> list[str]:
    """The item table's index must be 0..n-1 and its ids distinct: an index is an item's only name inside a snapshot."""
    parts = []
    for name in sorted(manifest.parts[tables.ITEM_TABLE].files):
        with storage.open(name) as file:
            parts.append(pq.read_table(file, columns=["item_index", "item_id"]))
    table = pa.concat_tables(parts)
    index = np.sort(table["item_index"].to_numpy())
    found = []
    if not np.array_equal(index, np.arange(len(index))):
        found.append(f"the item table's indexes are not 0 to {len(index) - 1:,}, each once")
    repeated = len(index) - len(table["item_id"].unique())
    if repeated:
        found.append(f"{repeated:,} rows of the item table repeat another row's item_id")
    return found
