"""serving_copy: one version's user records in Redis: room is checked, records are loaded, compared with the seal, later deleted."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn, TypeVar, cast

import numpy as np
import redis
from numpy.typing import NDArray

from infra.contracts.errors import NotEnoughRoom, SnapshotCorrupt, SnapshotNotLoaded
from infra.contracts.ids import ApplicationName, VersionName
from infra.contracts.snapshots import Manifest
from infra.snapshots import keys
from infra.snapshots.chunks import Chunk, read_chunks, records_digest, require_root, rows_of_spans
from infra.snapshots.records import KEY_COLUMNS, RECORD_COLUMNS, Records, keys_of, records_of, torn_user
from infra.snapshots.tables import CANDIDATES, verify_part
from infra.snapshots.versions import Version

_log = logging.getLogger("headgate.serving_copy")

SAMPLED_CHUNKS = 8
"""Compared before a copy that was loaded earlier is used again: 8,192 users, about a tenth of a second."""

_COMMAND_KEYS = 128
"""Keys that one command writes or reads: 0.8 MB, which keeps readers waiting for less than a millisecond."""

_SCAN_KEYS = 1000

T = TypeVar("T")

_RECORD_KEYS = (keys.RECORD.encode(), keys.CONSUMED.encode())


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did: payload is the bytes of the values, redis the growth of used_memory.

    mended: what was wrong with the copy that had been loaded before; empty where nothing was.
    """

    users: int
    payload_bytes: int
    redis_bytes: int
    seconds: float
    already_loaded: bool
    mended: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared with the seal and found equal. Keys of no user are looked for only where all chunks are compared."""

    chunks: int
    chunks_in_all: int
    users: int
    keys: int
    payload_bytes: int
    seconds: float


class ServingCopy:
    """The serving copy of one version of one application."""

    def __init__(self, client: redis.Redis, version: Version) -> None:
        self._client = client
        self._version = version
        self._keys = keys.UserKeys(version.application, version.version)
        self._marker_key = keys.load_marker(version.application, version.version)

    def marker(self) -> dict[str, object] | None:
        """What the last complete load recorded (digest, root, users, bytes); None where there was none."""
        value = self._client.get(self._marker_key)
        return dict(json.loads(value)) if value else None

    def require_loaded(self, manifest: Manifest) -> None:
        """Raise SnapshotNotLoaded unless exactly this manifest's copy was loaded and then read back in full."""
        require_root(self._version, manifest)
        marker = self.marker()
        if marker is None:
            raise SnapshotNotLoaded(f"{self._version.label} is not in Redis.", mend=self._load_command)
        if not _is_of(marker, manifest):
            raise SnapshotNotLoaded(f"{self._version.label} in Redis is of another build.", mend=self._load_command)

    def load(
        self, manifest: Manifest, *, limit_fraction: float, advance: Callable[[int], None] = lambda users: None
    ) -> LoadReport:
        """Write every record, then read all of them back and compare them with the sealed digests; the marker is written last.

        A copy that was loaded before is not written again where SAMPLED_CHUNKS of it are as sealed; where they are not, it is
        written over, in place. Keys of the version that belong to no user of the snapshot are deleted. Raises NotEnoughRoom
        before anything is written where used memory would pass `limit_fraction` of maxmemory, SnapshotCorrupt where the
        files are not as sealed, SnapshotNotLoaded where what was read back is not.
        """
        started = time.monotonic()
        chunks = read_chunks(self._version, manifest)
        marker, mended = self.marker(), ""
        if marker is not None and _is_of(marker, manifest):
            try:
                self._compare(_sample(chunks, SAMPLED_CHUNKS, np.random.default_rng()))
            except SnapshotNotLoaded as error:
                mended = str(error)
                _log.warning("It is loaded again: %s", mended)
            else:
                users, payload, grown = (int(str(marker[name])) for name in ("users", "payload_bytes", "redis_bytes"))
                return LoadReport(users, payload, grown, time.monotonic() - started, already_loaded=True)
        self._client.delete(self._marker_key)
        verify_part(self._version, manifest, CANDIDATES)
        self._require_room(chunks, limit_fraction=limit_fraction)
        before = self._used_memory()
        try:
            self._write(chunks, advance)
            self._delete_strays(self._compare(chunks))
            users, payload = sum(chunk.users for chunk in chunks), sum(chunk.payload_bytes for chunk in chunks)
            grown = self._used_memory() - before
            row = {"digest": manifest.digest, "records_root": manifest.records_root, "users": users}
            self._client.set(self._marker_key, json.dumps({**row, "payload_bytes": payload, "redis_bytes": grown}))
        except redis.exceptions.OutOfMemoryError as error:
            raise NotEnoughRoom(
                f"Redis ran out of memory while {self._version.label} was loaded; the alias has not moved.",
                mend="Run: make gc, or raise maxmemory.",
            ) from error
        return LoadReport(users, payload, grown, time.monotonic() - started, already_loaded=False, mended=mended)

    def verify(
        self,
        manifest: Manifest,
        *,
        chunks: int | None,
        rng: np.random.Generator,
        advance: Callable[[int], None] = lambda users: None,
    ) -> Verified:
        """Compare that many chunks, drawn by rng, with the sealed digests; None: all, and look for keys of no user as well.

        Raises SnapshotNotLoaded naming the chunk and a user where the copy differs, after its marker was withdrawn, so that it
        is not flipped to and the next load writes it anew; SnapshotCorrupt where the files differ.
        """
        started = time.monotonic()
        self.require_loaded(manifest)
        sealed = read_chunks(self._version, manifest)
        chosen = sealed if chunks is None else _sample(sealed, chunks, rng)
        try:
            known = self._compare(chosen, advance)
            if chunks is None and (stray := next(self._strays(known), None)) is not None:
                raise SnapshotNotLoaded(
                    f"{self._version.label} in Redis has {stray!r}, a key of no user of the snapshot.",
                    mend=self._load_command,
                )
        except SnapshotNotLoaded:
            self._client.delete(self._marker_key)
            raise
        return Verified(
            chunks=len(chosen),
            chunks_in_all=len(sealed),
            users=sum(chunk.users for chunk in chosen),
            keys=sum(chunk.keys for chunk in chosen),
            payload_bytes=sum(chunk.payload_bytes for chunk in chosen),
            seconds=time.monotonic() - started,
        )

    def delete(self) -> int:
        """Unlink the version's keys, marker first, in chunks small enough not to disturb readers. Returns how many."""
        return delete_version(self._client, self._version.application, self._version.version)

    @property
    def _load_command(self) -> str:
        version = self._version
        return f"Run: python -m infra.snapshots load --application {version.application} --version {version.version}"

    def _require_room(self, chunks: Sequence[Chunk], *, limit_fraction: float) -> None:
        memory = self._client.info("memory")
        limit = int(memory["maxmemory"]) or int(memory["total_system_memory"])
        free = int(limit * limit_fraction) - int(memory["used_memory"])
        wanted = sum(chunk.redis_bytes for chunk in chunks)
        if wanted > free:
            wanted -= self._held_bytes(chunks)
        if wanted > free:
            raise NotEnoughRoom(
                f"{self._version.label} needs {wanted / 2**20:.0f} MiB in Redis; {max(free, 0) / 2**20:.0f} MiB are free "
                f"below {limit_fraction:.0%} of its {limit / 2**20:.0f} MiB.",
                mend="Run: make gc, or raise maxmemory (HEADGATE_REDIS_MAXMEMORY_MB for the embedded Redis).",
            )

    def _held_bytes(self, chunks: Sequence[Chunk]) -> int:
        """What records of this version take already, from a load that was killed or a copy that was damaged."""
        held = 0
        for chunk, rows in rows_of_spans(self._version.storage, chunks, KEY_COLUMNS):
            present = sum(int(self._client.exists(*names)) for names in self._full(keys_of(rows)))
            held += chunk.redis_bytes * present // max(chunk.keys, 1)
        return held

    def _write(self, chunks: Sequence[Chunk], advance: Callable[[int], None]) -> None:
        for chunk, records in _one_ahead(self._made(chunks)):
            values = iter(records.values)
            for names in self._full(records.keys):
                self._client.mset(dict(zip(names, values, strict=False)))
            advance(chunk.users)

    def _made(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, Records]]:
        """Each chunk with what Redis must hold, made of the files."""
        for chunk, rows in rows_of_spans(self._version.storage, chunks, RECORD_COLUMNS):
            torn = torn_user(rows)
            if torn is not None:
                raise SnapshotCorrupt(
                    f"{self._version.label}: the arrays of user {torn!r} in {chunk.file} do not fit together: that is no record.",
                    mend="Build again: make snapshot",
                )
            yield chunk, records_of(rows)

    def _compare(
        self, chunks: Sequence[Chunk], advance: Callable[[int], None] = lambda users: None
    ) -> NDArray[np.int64]:
        """Read those chunks from Redis and compare them with their digests. Returns the hash of each key, sorted."""
        known = [np.zeros(0, np.int64)]
        for chunk, names, values in _one_ahead(self._found(chunks)):
            if None in values or records_digest(names, cast("list[bytes]", values)) != chunk.digest:
                self._raise_difference(chunk)
            known.append(_hashes(names))
            advance(chunk.users)
        return np.sort(np.concatenate(known))

    def _found(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[bytes], list[bytes | None]]]:
        """Each chunk with its keys, and what Redis holds under them."""
        for chunk, rows in rows_of_spans(self._version.storage, chunks, KEY_COLUMNS):
            names = keys_of(rows)
            yield chunk, names, self._read(names)

    def _raise_difference(self, chunk: Chunk) -> NoReturn:
        """Raise SnapshotCorrupt where the chunk's rows are not as sealed, else SnapshotNotLoaded naming a user who differs."""
        ((_, rows),) = rows_of_spans(self._version.storage, [chunk], RECORD_COLUMNS)
        records = records_of(rows)
        where = f"rows {chunk.first_row} to {chunk.first_row + chunk.users - 1} of {chunk.file}"
        if records_digest(records.keys, records.values) != chunk.digest:
            raise SnapshotCorrupt(
                f"{self._version.label}: {where} are not those that were sealed.",
                mend="Restore the file from a copy or build again: make snapshot",
            )
        seen = zip(records.keys, records.values, self._read(records.keys), strict=True)
        wrong = [(key, value, found) for key, value, found in seen if found != value]
        raise SnapshotNotLoaded(
            f"{self._version.label} in Redis is not what was sealed: of the {chunk.keys} keys of {where}, "
            f"{_describe(wrong) or 'one was changed while it was read'}.",
            mend=self._load_command,
        )

    def _read(self, names: Sequence[bytes]) -> list[bytes | None]:
        found = [value for chosen in self._full(names) for value in self._client.mget(chosen)]
        return cast("list[bytes | None]", found)  # this client does not decode

    def _full(self, names: Sequence[bytes]) -> Iterator[list[bytes]]:
        """The keys with the version's prefix, as many at a time as one command takes."""
        for at in range(0, len(names), _COMMAND_KEYS):
            yield [self._keys.key(name) for name in names[at : at + _COMMAND_KEYS]]

    def _strays(self, known: NDArray[np.int64]) -> Iterator[bytes]:
        """The version's keys of records that are of none of its users. known: the hash of each key that is, sorted."""
        for page in pages(self._client, self._version.application, self._version.version):
            names = [self._keys.name(key) for key in page]
            names = [name for name in names if name.startswith(_RECORD_KEYS)]
            hashes = _hashes(names)
            found = np.searchsorted(known, hashes)
            is_known = (found < len(known)) & (np.append(known, 0)[found] == hashes)
            yield from (self._keys.key(names[at]) for at in np.flatnonzero(~is_known))

    def _delete_strays(self, known: NDArray[np.int64]) -> None:
        strays, deleted = self._strays(known), 0
        while page := list(islice(strays, _SCAN_KEYS)):
            deleted += int(self._client.unlink(*page))
        if deleted:
            _log.warning(
                "%s: %d keys of no user of the snapshot were deleted from Redis.", self._version.label, deleted
            )

    def _used_memory(self) -> int:
        return int(self._client.info("memory")["used_memory"])


def delete_version(
    client: redis.Redis,
    application: ApplicationName,
    version: VersionName,
    *,
    before_each: Callable[[], None] = lambda: None,
    rest: float = 0.0,
) -> int:
    """Unlink every key of a version in chunks, its marker first. Returns how many there were.

    before_each: called before every chunk; what it raises ends the deletion there. rest: after each chunk, times as long as it
    took: readers go first.
    """
    client.delete(keys.load_marker(application, version))
    deleted = 0
    for page in pages(client, application, version, rest=rest):
        before_each()
        deleted += client.unlink(*page)
    return deleted


def pages(
    client: redis.Redis, application: ApplicationName, version: VersionName, *, rest: float = 0.0
) -> Iterator[list[bytes]]:
    """Every key of a version (or of a pattern of versions), some of them twice, as SCAN finds them.

    rest: after each page, times as long as it and what was done with it took.
    """
    cursor = 0
    while True:
        began_s = time.monotonic()
        cursor, found = client.scan(cursor, match=keys.version_pattern(application, version), count=_SCAN_KEYS)
        if found:
            yield cast("list[bytes]", found)
        if cursor == 0:
            return
        time.sleep(rest * (time.monotonic() - began_s))


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in a thread while the caller works on the one before: of file, Redis and digest none waits."""
    with ThreadPoolExecutor(1) as maker:
        ready = maker.submit(next, items, None)
        while (item := ready.result()) is not None:
            ready = maker.submit(next, items, None)
            yield item


def _is_of(marker: Mapping[str, object], manifest: Manifest) -> bool:
    seen = (marker.get("digest"), marker.get("records_root"))
    return seen == (manifest.digest, manifest.records_root)


def _sample(chunks: Sequence[Chunk], n: int, rng: np.random.Generator) -> list[Chunk]:
    """n of the chunks (all where there are fewer), each as likely as any other, in order."""
    return [chunks[at] for at in np.sort(rng.choice(len(chunks), size=min(n, len(chunks)), replace=False))]


def _hashes(names: Sequence[bytes]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, names), np.int64, len(names))


def _describe(wrong: Sequence[tuple[bytes, bytes, bytes | None]]) -> str:
    """How many keys differ, and how the first of them does."""
    if not wrong:
        return ""
    key, value, seen = wrong[0]
    what = "older consumed items" if key.startswith(keys.CONSUMED.encode()) else "record"
    user = key[len(keys.RECORD) :].decode(errors="replace")
    if seen is None:
        how = "is missing"
    elif len(seen) != len(value):
        how = f"has {len(seen)} bytes, wanted {len(value)}"
    else:
        how = f"has another byte at {next(at for at in range(len(value)) if seen[at] != value[at])}"
    return f"{len(wrong)} differ: the {what} of user {user!r} {how}"
