"""tables: a sealed snapshot's parts as arrays and record batches, read from the store and checked against the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.catalog.features.ranking import ITEM_FEATURES, ItemColumns, genre_matrix
from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.snapshots import Manifest
from infra.snapshots.storage import Storage
from infra.snapshots.versions import Version

CANDIDATES = "candidates"
ITEM_TABLE = "item_table"
POPULAR = "popular"
RANKER = "ranker"
RANKER_REPORT = "ranker_report"
NETWORK = "network"
USER_VECTORS = "user_vectors"
ITEM_VECTORS = "item_vectors"
CHUNKS = "chunks"
"""The names of a snapshot's parts in its manifest."""

USER_WEIGHT = "user_weight"
"""Column of the item vectors: UserProjection.weights; float32. Snapshots sealed before there was one are without it."""

USER_SCALE = b"user_scale"
"""In the item vectors' schema: UserProjection.scale, as JSON."""

CANDIDATES_SCHEMA = pa.schema(
    [
        pa.field("user_index", pa.int32(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_indices", pa.binary(), nullable=False),  # int32 little-endian, best first
        pa.field("scores", pa.binary(), nullable=False),  # float16 little-endian, aligned
        pa.field("features", pa.binary(), nullable=False),  # float16 little-endian, in USER_FEATURES order
        pa.field("history", pa.binary(), nullable=False),  # int32 little-endian, newest first
        pa.field(
            "consumed", pa.binary(), nullable=False
        ),  # int32 little-endian, rising: all of it; empty where lists include it
    ]
)

POPULAR_SCHEMA = pa.schema(
    [
        pa.field("list", pa.string(), nullable=False),  # popular | trending
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("item_index", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)

CHUNKS_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),  # of the candidates, relative to the version's folder
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("users", pa.int64(), nullable=False),
        pa.field("keys", pa.int64(), nullable=False),
        pa.field("payload_bytes", pa.int64(), nullable=False),
        pa.field("redis_bytes", pa.int64(), nullable=False),  # memory, as foreseen
        pa.field("digest", pa.string(), nullable=False),  # SHA-256 of keys and values, hexadecimal
    ]
)


@dataclass(frozen=True, slots=True)
class ItemTable:
    """The catalogue of one snapshot; every array is aligned with the item index.

    columns: the ranker's item side; `genre_names` are the columns of its genre matrix.
    """

    item_ids: list[str]
    titles: list[str]
    genres: list[list[str]]
    creators: list[str | None]
    columns: ItemColumns
    genre_names: tuple[str, ...]
    index_of: dict[str, int]


@dataclass(frozen=True, slots=True)
class UserProjection:
    """From item vectors to a user's, up to a factor of the user's own: (the sum of weights_i item_i over the user's items) / scale.

    weights: float32 [n_items], 0 where nobody took the item. scale: float32 [d]; where it is 0 every item vector is 0.
    """

    weights: Float32s
    scale: Float32s

    def user(self, items: Sequence[int], item_vectors: Float32s) -> Float32s:
        """The vector of a user who took those items, each once: float32 [d] of length 1; zeros where none has a direction."""
        chosen = np.asarray(items, np.int64)
        total = (self.weights[chosen, None] * item_vectors[chosen]).sum(axis=0)
        vector: Float32s = np.divide(total, self.scale, out=np.zeros_like(total), where=self.scale > 0)
        length = np.linalg.norm(vector)
        return vector / length if length > 0 else vector


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """The item side of the embedding. vectors: float32 [n_items, d]; projection: None where the snapshot was sealed without."""

    vectors: Float32s
    projection: UserProjection | None


def verify_part(version: Version, manifest: Manifest, part: str) -> list[str]:
    """The part's files, after every digest was compared with the manifest; raises SnapshotCorrupt."""
    files = manifest.parts[part].files
    for name, wanted in files.items():
        if not version.storage.exists(name):
            raise SnapshotCorrupt(
                f"{version.label}: {name} of part {part} is missing.", mend="Build again: make snapshot"
            )
        seen = version.storage.sha256(name)
        if seen != wanted:
            raise SnapshotCorrupt(
                f"{version.label}: {name} has digest {seen[:12]}, its manifest promises {wanted[:12]}.",
                mend="Restore the file from a copy or build again: make snapshot",
            )
    return sorted(files)


def candidate_batches(storage: Storage, files: list[str], *, rows: int = 2048) -> Iterator[pa.RecordBatch]:
    """The candidates in batches of CANDIDATES_SCHEMA, file by file."""
    for name in files:
        with storage.open(name) as file:
            yield from pq.ParquetFile(file).iter_batches(batch_size=rows, columns=CANDIDATES_SCHEMA.names)


def read_item_table(storage: Storage, files: list[str]) -> ItemTable:
    """The item table as arrays. Raises SnapshotCorrupt where its index is not 0..n-1."""
    table = pa.concat_tables([_read(storage, name) for name in files])
    return item_table(table)


def item_table(table: pa.Table) -> ItemTable:
    """The item table from its Parquet columns; rows may come in any order."""
    table = table.sort_by("item_index")
    index = table["item_index"].to_numpy()
    if not np.array_equal(index, np.arange(len(index))):
        raise SnapshotCorrupt(f"The item table's {len(index)} indexes are not 0 to {len(index) - 1}, each once.")
    features = np.column_stack([table[name].to_numpy() for name in ITEM_FEATURES]).astype(np.float32)
    genres = [list(names or ()) for names in table["genres"].to_pylist()]
    matrix, genre_names = genre_matrix(genres)
    creators = table["creator"].to_pylist()
    numbers = {name: number for number, name in enumerate(sorted({name for name in creators if name}))}
    creator_index = np.array([numbers.get(name or "", -1) for name in creators], np.int32)
    item_ids = table["item_id"].to_pylist()
    return ItemTable(
        item_ids=item_ids,
        titles=table["title"].to_pylist(),
        genres=genres,
        creators=creators,
        columns=ItemColumns(np.ascontiguousarray(features), matrix, creator_index),
        genre_names=genre_names,
        index_of={item_id: at for at, item_id in enumerate(item_ids)},
    )


def read_popular(storage: Storage, files: list[str]) -> dict[str, tuple[Int32s, Float32s]]:
    """For each list (popular, trending): item indices and scores, best first."""
    table = pa.concat_tables([_read(storage, name) for name in files]).sort_by("rank")
    lists = {}
    for name in sorted(set(table["list"].to_pylist())):
        rows = table.filter(pc.equal(table["list"], name))
        lists[name] = (
            rows["item_index"].to_numpy().astype(np.int32),
            rows["score"].to_numpy().astype(np.float32),
        )
    return lists


def read_item_vectors(storage: Storage, files: list[str]) -> ItemVectors:
    """The item vectors, row i of item i. Raises SnapshotCorrupt where the index is not 0..n-1 or lengths differ."""
    table = pa.concat_tables([_read(storage, name) for name in files]).sort_by("item_index")
    n = table.num_rows
    if not np.array_equal(table["item_index"].to_numpy(), np.arange(n)):
        raise SnapshotCorrupt(f"The item vectors' {n} indexes are not 0 to {n - 1}, each once.")
    column = table["vector"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if n and len(set(pc.list_value_length(column).to_pylist())) > 1:
        raise SnapshotCorrupt("The item vectors are not of one length.")
    vectors = np.ascontiguousarray(flat.reshape(n, -1) if n else np.zeros((0, 0), np.float32))
    projection = user_projection(table)
    if projection is not None and len(projection.scale) != vectors.shape[1]:
        raise SnapshotCorrupt(f"user_scale has {len(projection.scale)} numbers for vectors of {vectors.shape[1]}.")
    return ItemVectors(vectors, projection)


def user_projection(table: pa.Table) -> UserProjection | None:
    """What the item vectors' table says of users, in its order. Raises SnapshotCorrupt where that cannot be."""
    scale = (table.schema.metadata or {}).get(USER_SCALE)
    if scale is None and USER_WEIGHT not in table.column_names:
        return None
    if scale is None or USER_WEIGHT not in table.column_names:
        raise SnapshotCorrupt("The item vectors have one of user_weight and user_scale, and not the other.")
    weights = table[USER_WEIGHT].to_numpy().astype(np.float32)
    projection = UserProjection(weights, np.array(json.loads(scale), np.float32))
    for name, values in (("user_weight", projection.weights), ("user_scale", projection.scale)):
        wrong = int((~(np.isfinite(values) & (values >= 0))).sum())
        if wrong:
            raise SnapshotCorrupt(f"{wrong} of {len(values)} numbers of {name} are not 0 or more.")
    return projection


def _read(storage: Storage, name: str) -> pa.Table:
    with storage.open(name) as file:
        return pq.read_table(file)
