"""storage: one folder on a local disk or an object store, by fsspec; create-if-absent is the only commit it knows."""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import IO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

_CHUNK_BYTES = 1 << 20


class Storage:
    """Paths given to its methods are relative to `root`, with `/` between."""

    def __init__(self, root: str) -> None:
        """root: a path, or a URL that fsspec knows such as s3://bucket/prefix."""
        self.fs, self._root = fsspec.core.url_to_fs(root)
        self.url = root.rstrip("/")
        self._root = self._root.rstrip("/")

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    @property
    def is_local(self) -> bool:
        """True on a local disk."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def arrow(self) -> PyFileSystem:
        """The same file system as pyarrow wants it; use with `full(path)`."""
        return PyFileSystem(FSSpecHandler(self.fs))

    def full(self, path: str = "") -> str:
        """The path as the file system knows it."""
        return f"{self._root}/{path}".rstrip("/")

    def uri(self, path: str = "") -> str:
        """The path as another process (Spark, a shell) would open it."""
        return f"{self.url}/{path}".rstrip("/")

    def below(self, path: str) -> Storage:
        """The storage whose root is that folder."""
        return Storage(self.uri(path))

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there now."""
        return bool(self.fs.exists(self.full(path)))

    def read(self, path: str) -> bytes:
        """All bytes of a file; raises FileNotFoundError."""
        return cast(bytes, self.fs.cat_file(self.full(path)))

    def open(self, path: str, mode: str = "rb") -> IO[bytes]:
        """A file object; folders are made as needed when writing."""
        if "r" not in mode:
            self.fs.makedirs(os.path.dirname(self.full(path)), exist_ok=True)
        return cast("IO[bytes]", self.fs.open(self.full(path), mode))

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file, replacing one that is there."""
        with self.open(path, "wb") as file:
            file.write(content)

    def create(self, path: str, content: bytes) -> bool:
        """Write a whole file if none of that name exists; False where one does. Of several callers one wins.

        On a disk: written under another name, flushed, then hard-linked, so that no reader sees a part of it and no crash
        leaves one. On an object store: a conditional put.
        """
        full = self.full(path)
        if self.is_local:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            draft = f"{full}.{uuid.uuid4().hex}.draft"
            try:
                with open(draft, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(draft, full)
                _sync_folder(os.path.dirname(full))
            except FileExistsError:
                return False
            finally:
                if os.path.exists(draft):
                    os.unlink(draft)
            return True
        try:
            self.fs.pipe_file(full, content, mode="create")
        except FileExistsError:
            return False
        return True

    def names(self, path: str = "") -> list[str]:
        """The names of what lies directly in a folder, sorted; empty where there is no such folder."""
        full = self.full(path)
        if not self.fs.exists(full):
            return []
        self.fs.invalidate_cache(full)
        found = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in self.fs.ls(full, detail=False))
        return sorted(name for name in found if name and not name.endswith(".draft"))

    def files(self, path: str) -> list[str]:
        """All files below a folder (or the file itself), relative to the root, sorted."""
        full = self.full(path)
        found = self.fs.find(full)
        return sorted(name[len(self._root) :].lstrip("/") for name in found)

    def size(self, path: str) -> int:
        """Bytes of one file."""
        return int(self.fs.size(self.full(path)))

    def remove(self, path: str) -> None:
        """Delete a file or a folder with all below it; fine where there is none."""
        if self.fs.exists(self.full(path)):
            self.fs.rm(self.full(path), recursive=True)

    def sha256(self, path: str) -> str:
        """The digest of one file's bytes."""
        digest = hashlib.sha256()
        with self.open(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


def _sync_folder(folder: str) -> None:
    """A new name outlives a power cut only once its folder was flushed too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
