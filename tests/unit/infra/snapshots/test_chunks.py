"""Chunks: spans however files are cut into row groups, digests that see every change, a sealed table that cannot be swapped."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts.errors import SnapshotCorrupt, SnapshotNotLoaded
from infra.snapshots.chunks import (
    CHUNK_USERS,
    Span,
    read_chunks,
    records_digest,
    root_of,
    rows_of_spans,
    seal_chunks,
    spans_of,
)
from infra.snapshots.storage import Storage
from infra.snapshots.tables import CANDIDATES, CHUNKS
from infra.snapshots.versions import manifest_with_digest
from tests.fixtures.tiny_snapshot import build_tiny_snapshot


def write(storage: Storage, name: str, *, rows: int, row_group: int) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"row": pa.array(range(rows), pa.int32())}), sink, row_group_size=row_group)
    storage.write(name, sink.getvalue())


@settings(deadline=None, max_examples=50)
@given(st.integers(50, 2500), st.lists(st.integers(1, 900), min_size=1, max_size=6), st.data())
def test_the_rows_of_a_span_are_found_however_the_file_is_cut(
    row_group: int, sizes: list[int], data: st.DataObject
) -> None:
    storage = Storage("memory://spans")
    write(storage, "part", rows=sum(sizes), row_group=row_group)
    spans = [Span("part", sum(sizes[:at]), size) for at, size in enumerate(sizes)]
    chosen = [span for span in spans if data.draw(st.booleans())]
    found = [(span, rows["row"].to_pylist()) for span, rows in rows_of_spans(storage, chosen, ["row"])]
    assert found == [(span, list(range(span.first_row, span.first_row + span.users))) for span in chosen]


def test_spans_hold_every_row_once_and_never_reach_into_the_next_file() -> None:
    storage = Storage("memory://files")
    sizes = {"b": 2 * CHUNK_USERS + 1, "a": 5, "c": 0}
    for name, rows in sizes.items():
        write(storage, name, rows=rows, row_group=1000)
    seen = [(span.file, span.first_row, span.users) for span in spans_of(storage, list(sizes))]
    assert seen == [("a", 0, 5), ("b", 0, CHUNK_USERS), ("b", CHUNK_USERS, CHUNK_USERS), ("b", 2 * CHUNK_USERS, 1)]


def test_a_file_with_fewer_rows_than_sealed_is_corrupt() -> None:
    storage = Storage("memory://short")
    write(storage, "part", rows=10, row_group=4)
    with pytest.raises(SnapshotCorrupt, match="it ends after 10 rows, before row 11"):
        list(rows_of_spans(storage, [Span("part", 8, 4)], ["row"]))


@pytest.mark.parametrize(
    "other",
    [
        ([b"u:a", b"u:b"], [b"one", b"twp"]),
        ([b"u:a", b"u:c"], [b"one", b"two"]),
        ([b"u:b", b"u:a"], [b"two", b"one"]),
        ([b"u:a", b"u:b"], [b"on", b"etwo"]),
        ([b"u:a", b"u:bo"], [b"ne", b"two"]),
        ([b"u:a"], [b"one"]),
    ],
)
def test_a_digest_sees_each_byte_each_border_and_the_order(other: tuple[list[bytes], list[bytes]]) -> None:
    assert records_digest(*other) != records_digest([b"u:a", b"u:b"], [b"one", b"two"])


def test_the_root_covers_digests_order_and_counts(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    manifest = version.manifest()
    first, second = read_chunks(version, manifest)
    assert root_of([first, second]) == manifest.records_root
    others = ([second, first], [first], [first, replace(second, users=61)], [first, replace(second, digest="0" * 64)])
    assert manifest.records_root not in {root_of(chunks) for chunks in others}


def test_sealing_the_same_rows_again_is_the_same_file_with_the_same_root(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    manifest = version.manifest()
    files = list(manifest.parts[CANDIDATES].files)
    assert seal_chunks(version, files) == (manifest.parts[CHUNKS], manifest.records_root)
    assert len(version.storage.names("chunks")) == 1


def test_a_table_of_digests_that_is_not_the_sealed_one_is_corrupt(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    manifest = version.manifest()
    with pytest.raises(SnapshotCorrupt, match=r"have root [0-9a-f]{12}, its manifest promises 000000000000"):
        read_chunks(version, replace(manifest, records_root="0" * 64))
    (name,) = manifest.parts[CHUNKS].files
    version.storage.write(name, version.storage.read(name)[:-1])
    with pytest.raises(SnapshotCorrupt, match="chunks/.* has digest"):
        read_chunks(version, manifest)


def test_a_snapshot_of_an_earlier_release_is_still_read_and_says_that_it_must_be_built_again(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    manifest = version.manifest()
    parts = {name: part for name, part in manifest.parts.items() if name != CHUNKS}
    old = manifest_with_digest(replace(manifest, parts=parts, records_root=""))
    version.storage.write("manifest.json", old.to_json().replace(' "records_root": "",\n', "").encode())
    assert "records_root" not in version.storage.read("manifest.json").decode()
    assert version.manifest() == old
    with pytest.raises(SnapshotNotLoaded, match=r"sealed by an earlier release.*Build again: make snapshot"):
        read_chunks(version, version.manifest())
