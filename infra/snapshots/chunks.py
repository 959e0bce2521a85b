"""chunks: digests of what Redis must hold for every thousand users, sealed with the snapshot, and the root over them."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.contracts.errors import SnapshotCorrupt, SnapshotNotLoaded
from infra.contracts.snapshots import Manifest, Part
from infra.snapshots import keys
from infra.snapshots.records import RECORD_COLUMNS, Records, records_of
from infra.snapshots.storage import Storage
from infra.snapshots.tables import CHUNKS, CHUNKS_SCHEMA, verify_part
from infra.snapshots.versions import Version

CHUNK_USERS = 1024
"""6 MB of records: one comparison says which thousand users are wrong, and a million users have a thousand digests."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive rows of one candidates file; they never reach into the next file."""

    file: str
    first_row: int
    users: int


@dataclass(frozen=True, slots=True)
class Chunk(Span):
    """What Redis must hold for a span's users: how many keys and bytes, the memory it takes, and the digest of all of it."""

    keys: int
    payload_bytes: int
    redis_bytes: int
    digest: str


SpanT = TypeVar("SpanT", bound=Span)


def records_digest(names: Sequence[bytes], values: Sequence[bytes]) -> str:
    """SHA-256 over the number of keys, the lengths of each key and value, the keys and the values, in order, hexadecimal."""
    hashed = hashlib.sha256(np.array([len(names)], "<i8").tobytes())
    for parts in (names, values):
        hashed.update(np.fromiter(map(len, parts), "<i4", len(parts)).tobytes())
    for parts in (names, values):
        hashed.update(b"".join(parts))
    return hashed.hexdigest()


def root_of(chunks: Sequence[Chunk]) -> str:
    """SHA-256 over the chunks' digests and counts in order, and the counts of them all, hexadecimal."""
    hashed = hashlib.sha256()
    for chunk in chunks:
        hashed.update(bytes.fromhex(chunk.digest) + np.array([chunk.users, chunk.keys], "<i8").tobytes())
    totals = [len(chunks), sum(chunk.users for chunk in chunks), sum(chunk.keys for chunk in chunks)]
    hashed.update(np.array(totals, "<i8").tobytes())
    return hashed.hexdigest()


def seal_chunks(
    version: Version, files: Sequence[str], *, advance: Callable[[int], None] = lambda users: None
) -> tuple[Part, str]:
    """Digest what Redis must hold for all users of the candidates files and write it beside them: the part and its root.

    The file's name is the digest of its content, so publishers at the same moment do not write over each other.
    """
    prefix_bytes = keys.UserKeys(version.application, version.version).prefix_bytes
    chunks = []
    for span, rows in rows_of_spans(version.storage, spans_of(version.storage, files), RECORD_COLUMNS):
        chunks.append(_chunk(span, records_of(rows), prefix_bytes=prefix_bytes))
        advance(span.users)
    table = pa.Table.from_pylist([asdict(chunk) for chunk in chunks], schema=CHUNKS_SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    content = sink.getvalue()
    path = f"chunks/{hashlib.sha256(content).hexdigest()}.parquet"
    version.storage.create(path, content)
    return version.part(path), root_of(chunks)


def read_chunks(version: Version, manifest: Manifest) -> list[Chunk]:
    """The sealed chunks in order. Raises SnapshotCorrupt, SnapshotNotLoaded where the snapshot was sealed without any."""
    require_root(version, manifest)
    chunks = []
    for name in verify_part(version, manifest, CHUNKS):
        with version.storage.open(name) as file:
            chunks += [Chunk(**row) for row in pq.read_table(file).to_pylist()]
    root = root_of(chunks)
    if root != manifest.records_root:
        raise SnapshotCorrupt(
            f"{version.label}: its chunks' digests have root {root[:12]}, its manifest promises {manifest.records_root[:12]}.",
            mend="Build again: make snapshot",
        )
    return chunks


def require_root(version: Version, manifest: Manifest) -> None:
    """Raise SnapshotNotLoaded where the snapshot was sealed before its records had digests."""
    if not manifest.records_root:
        raise SnapshotNotLoaded(
            f"{version.label} was sealed by an earlier release, without digests of what Redis must hold: no copy of it "
            "could be compared with what was validated.",
            mend="Build again: make snapshot",
        )


def spans_of(storage: Storage, files: Sequence[str]) -> Iterator[Span]:
    """All rows of the files, cut into spans of CHUNK_USERS: files by name, rows as they lie. Raises SnapshotCorrupt."""
    for name in sorted(files):
        with _opened(storage, name) as parquet:
            rows = parquet.metadata.num_rows
        for first in range(0, rows, CHUNK_USERS):
            yield Span(name, first, min(CHUNK_USERS, rows - first))


def rows_of_spans(
    storage: Storage, spans: Iterable[SpanT], columns: Sequence[str]
) -> Iterator[tuple[SpanT, pa.RecordBatch]]:
    """Each span with its rows; spans of one file come together and in order. Row groups that hold none are not read.

    Raises SnapshotCorrupt where a file cannot be read or ends too early.
    """
    for name, wanted in groupby(spans, key=lambda span: span.file):
        with _opened(storage, name) as parquet:
            yield from _cut(parquet, deque(wanted), columns)


@contextmanager
def _opened(storage: Storage, name: str) -> Iterator[pq.ParquetFile]:
    try:
        with storage.open(name) as file:
            yield pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise SnapshotCorrupt(
            f"{name} cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}).",
            mend="Restore the file from a copy or build again: make snapshot",
        ) from error


def _cut(
    parquet: pq.ParquetFile, wanted: deque[SpanT], columns: Sequence[str]
) -> Iterator[tuple[SpanT, pa.RecordBatch]]:
    group_first, held = 0, []
    for group in range(parquet.num_row_groups):
        first, group_first = group_first, group_first + parquet.metadata.row_group(group).num_rows
        if not wanted or wanted[0].first_row >= group_first:
            continue
        for batch in parquet.iter_batches(batch_size=CHUNK_USERS, row_groups=[group], columns=list(columns)):
            end = first + batch.num_rows
            while wanted and wanted[0].first_row < end:
                span = wanted[0]
                span_end = span.first_row + span.users
                begin = max(span.first_row, first)
                held.append(batch.slice(begin - first, min(span_end, end) - begin))
                if span_end > end:
                    break
                yield wanted.popleft(), _joined(held)
                held = []
            first = end
    if wanted:
        raise pa.ArrowInvalid(
            f"it ends after {group_first} rows, before row {wanted[0].first_row + wanted[0].users - 1}"
        )


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def _chunk(span: Span, records: Records, *, prefix_bytes: int) -> Chunk:
    return Chunk(
        span.file,
        span.first_row,
        span.users,
        len(records.keys),
        records.payload_bytes,
        records.redis_bytes(prefix_bytes=prefix_bytes),
        records_digest(records.keys, records.values),
    )
