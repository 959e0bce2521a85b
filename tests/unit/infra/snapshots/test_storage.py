"""One suite for every place a snapshot may lie: a disk and an object store keep the same promises."""

from __future__ import annotations

import hashlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.snapshots.storage import Storage


@pytest.fixture(params=["disk", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "root") if request.param == "disk" else f"memory://{uuid.uuid4().hex}")


def test_a_file_is_created_once_and_the_second_writer_is_told(storage: Storage) -> None:
    assert storage.create("a/b.json", b"first") is True
    assert storage.create("a/b.json", b"second") is False
    assert storage.read("a/b.json") == b"first"
    assert storage.names("a") == ["b.json"]


def test_of_many_writers_exactly_one_creates_a_file_and_its_bytes_are_whole(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    contents = [bytes([writer]) * 200_000 for writer in range(32)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda content: storage.create("manifest.json", content), contents))
    assert sum(won) == 1
    assert storage.read("manifest.json") == contents[won.index(True)]
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"], "a loser left its draft"


def test_a_draft_that_a_crash_left_is_no_file(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    (tmp_path / "manifest.json.0123.draft").write_bytes(b"half")
    assert storage.names() == []
    assert storage.create("manifest.json", b"whole")


def test_writing_replaces_and_reading_finds_all_bytes(storage: Storage) -> None:
    storage.write("deep/er/file.bin", b"old and long")
    storage.write("deep/er/file.bin", b"new\x00")
    assert storage.read("deep/er/file.bin") == b"new\x00"
    assert storage.size("deep/er/file.bin") == 4


def test_reading_what_is_not_there_says_so(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("nothing.json")
    assert not storage.exists("nothing.json")
    assert storage.names("nothing") == []


def test_names_are_those_directly_in_a_folder_and_files_are_all_below(storage: Storage) -> None:
    for path in ("v1/build.json", "v1/states/000001.json", "v10/build.json", "v2/build.json", "v2/a/b/c.parquet"):
        storage.write(path, b"x")
    assert storage.names() == ["v1", "v10", "v2"]
    assert storage.names("v1") == ["build.json", "states"]
    assert storage.files("v2") == ["v2/a/b/c.parquet", "v2/build.json"]
    assert storage.files("v2/build.json") == ["v2/build.json"]
    assert len(storage.files("")) == 5
    assert storage.exists("v2/a") and not storage.exists("v3")


def test_a_name_written_by_somebody_else_is_seen_at_once(storage: Storage) -> None:
    storage.write("states/000001.json", b"x")
    assert storage.names("states") == ["000001.json"]
    Storage(storage.url).create("states/000002.json", b"x")
    assert storage.names("states") == ["000001.json", "000002.json"]


def test_the_storage_below_a_folder_sees_the_same_files(storage: Storage) -> None:
    storage.below("v1").write("build.json", b"{}")
    assert storage.read("v1/build.json") == b"{}"
    assert storage.below("v1").files("") == ["build.json"]
    assert storage.below("v1").uri("build.json") == f"{storage.url}/v1/build.json"


def test_removing_takes_all_below_and_is_fine_where_nothing_is(storage: Storage) -> None:
    storage.write("v1/a/b.json", b"x")
    storage.write("v1x/b.json", b"x")
    storage.remove("v1")
    storage.remove("v1")
    assert storage.files("") == ["v1x/b.json"]


def test_the_digest_is_the_bytes_own_however_large(storage: Storage) -> None:
    content = bytes(range(256)) * 10_000
    storage.write("large.bin", content)
    assert storage.sha256("large.bin") == hashlib.sha256(content).hexdigest()


def test_pyarrow_reads_what_was_written(storage: Storage) -> None:
    with storage.open("t/part-0.parquet", "wb") as file:
        pq.write_table(pa.table({"x": [1, 2, 3]}), file)
    assert pq.read_table(storage.full("t"), filesystem=storage.arrow)["x"].to_pylist() == [1, 2, 3]


@given(
    st.lists(st.text("abcdefgh-_.0123456789=", min_size=1, max_size=12), min_size=1, max_size=3), st.binary(max_size=99)
)
def test_any_sensible_path_comes_back(parts: list[str], content: bytes) -> None:
    path = "/".join(part.strip(".") or "x" for part in parts)
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    storage.write(path, content)
    assert storage.files("") == [path]
    assert storage.read(path) == content
