"""inputs: which files a source names, on a disk, in a zip or on an object store, and their bytes, unpacked on the way."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import fsspec
from pyarrow import ArrowException

from infra.contracts.errors import DataRefused, HeadgateError

_CHUNK_BYTES = 1 << 20
_COMPRESSIONS = (".gz", ".bz2", ".xz")

Advance = Callable[[int], None]
"""Called with the number of stored (packed) bytes that were read since the last call."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One stored file. name: relative to the source, as messages and the rejects file call it."""

    fs: fsspec.AbstractFileSystem
    path: str
    name: str
    size_bytes: int

    @property
    def suffix(self) -> str:
        """The ending that says what is inside, without that of a compression: `a.csv.gz` -> `.csv`."""
        path = PurePosixPath(self.name.lower())
        return (PurePosixPath(path.stem) if path.suffix in _COMPRESSIONS else path).suffix

    @property
    def packed(self) -> bool:
        """True where the bytes are compressed as a whole."""
        return self.name.lower().endswith(_COMPRESSIONS)


@dataclass(frozen=True, slots=True)
class Source:
    """url: as the user gave it. files: sorted by name. folder: False where the user named one file."""

    url: str
    files: tuple[InputFile, ...]
    folder: bool

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all files."""
        return sum(file.size_bytes for file in self.files)


def resolve(url: str) -> Source:
    """A file, a folder, a glob or a .zip; a path or an fsspec URL. Hidden files and those that begin with `_` are left out."""
    if not url.strip():
        raise DataRefused("The source is empty.", mend="Name a file, a folder, a glob or an fsspec URL: --source PATH")
    try:
        fs, root, found = _find(url)
    except (OSError, ValueError, ImportError) as error:
        raise DataRefused(
            f"The source {url} cannot be opened: {error}.", mend="Check the path or the URL and its access rights."
        ) from error
    if not found:
        raise DataRefused(
            f"There is no file at {url}.", mend="Check --source; relative paths start at the current folder."
        )
    folder = list(found) != [root]
    files = [_input(fs, path, root, size, folder=folder) for path, size in found.items()]
    visible = (file for file in files if not any(part[0] in "._" for part in PurePosixPath(file.name).parts))
    return Source(url, tuple(sorted(visible, key=lambda file: file.name)), folder)


def _find(url: str) -> tuple[fsspec.AbstractFileSystem, str, dict[str, int]]:
    """The file system, the folder that names are relative to, and the bytes of each file."""
    plain = str(Path(url).expanduser()) if url.startswith("~") else url
    target = f"zip://::{plain}" if plain.lower().endswith(".zip") and not plain.startswith("zip://") else plain
    fs, root = fsspec.core.url_to_fs(target)
    root = root.rstrip("/")
    if fs.exists(root) or (not root and target is not plain):
        return fs, root, _sizes(fs, fs.find(root))
    matches = fs.glob(root, detail=True) if any(mark in root for mark in "*?[") else {}
    fixed = root[: min((root.index(mark) for mark in "*?[" if mark in root), default=0)]
    found = [path for path, info in matches.items() if info["type"] == "file"]
    return fs, fixed.rpartition("/")[0], _sizes(fs, found)


def _sizes(fs: fsspec.AbstractFileSystem, found: Iterable[str]) -> dict[str, int]:
    return {path: int(fs.info(path)["size"] or 0) for path in found}


def _input(fs: fsspec.AbstractFileSystem, path: str, root: str, size: int, *, folder: bool) -> InputFile:
    name = path.removeprefix(root).lstrip("/") if folder else path.rpartition("/")[2]
    return InputFile(fs, path, name, size)


class _Counted(io.RawIOBase):
    """A stream that tells how many bytes were taken from it."""

    def __init__(self, raw: IO[bytes], advance: Advance) -> None:
        self._raw, self._advance = raw, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self._advance(len(data))
        return len(data)


@contextmanager
def reading(file: InputFile, *, advance: Advance = lambda n: None) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked; whatever is wrong with the file becomes a DataRefused that names it."""
    with _refusing(file), file.fs.open(file.path, "rb") as raw:
        counted = cast("IO[bytes]", io.BufferedReader(_Counted(raw, advance), _CHUNK_BYTES))
        name = file.name.lower()
        if name.endswith(".gz"):
            counted = cast("IO[bytes]", gzip.GzipFile(fileobj=counted))
        elif name.endswith(".bz2"):
            counted = cast("IO[bytes]", bz2.BZ2File(counted))
        elif name.endswith(".xz"):
            counted = cast("IO[bytes]", lzma.LZMAFile(counted))  # noqa: SIM115
        yield counted


@contextmanager
def seekable(file: InputFile) -> Iterator[IO[bytes]]:
    """The file for a reader that jumps about in it (Parquet)."""
    with _refusing(file), file.fs.open(file.path, "rb") as raw:
        yield raw


@contextmanager
def _refusing(file: InputFile) -> Iterator[None]:
    try:
        yield
    except HeadgateError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ArrowException) as error:
        raise DataRefused(
            f"{file.name} cannot be read: {' '.join(str(error).split()) or type(error).__name__}.",
            mend="Check that it is whole (a cut download, a wrong ending) and may be read.",
        ) from error


def digest(file: InputFile, *, advance: Advance = lambda n: None) -> str:
    """SHA-256 of the stored bytes."""
    hashed = hashlib.sha256()
    with _refusing(file), file.fs.open(file.path, "rb") as raw:
        while chunk := raw.read(_CHUNK_BYTES):
            hashed.update(chunk)
            advance(len(chunk))
    return hashed.hexdigest()
