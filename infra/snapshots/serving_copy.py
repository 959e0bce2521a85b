"""serving_copy: one version's user records in Redis: room is checked, records are loaded, read back, and later deleted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import redis
from numpy.typing import NDArray

from infra.contracts.candidates import HEADER_BYTES, UserRecord, pack
from infra.contracts.errors import NotEnoughRoom, SnapshotNotLoaded
from infra.contracts.ids import ApplicationName, VersionName
from infra.contracts.snapshots import Manifest
from infra.snapshots import keys
from infra.snapshots.tables import CANDIDATES, candidate_batches, verify_part
from infra.snapshots.versions import Version

_PIPELINE_KEYS = 256
_PAYLOAD_COLUMNS = ("item_indices", "scores", "features", "history")
_TABLE_RESIZE_BYTES_PER_KEY = 32
"""Redis's hash table while it doubles: both tables are held, two and one pointers a key at the worst."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did: payload is the bytes of the packed records, redis the growth of used_memory."""

    users: int
    payload_bytes: int
    redis_bytes: int
    seconds: float
    already_loaded: bool


def allocated_bytes(request_bytes: int) -> int:
    """What jemalloc gives for a request: four size classes for each doubling above 128 bytes, 16-byte steps below."""
    if request_bytes <= 128:
        return -(-request_bytes // 16) * 16
    step = 1 << ((request_bytes - 1).bit_length() - 3)
    return -(-request_bytes // step) * step


def record_memory_bytes(*, payload_bytes: int, key_bytes: int) -> int:
    """Memory of one string key in Redis 7: value and key with their headers, the object, the table's entry."""
    value = allocated_bytes(payload_bytes + 6)
    key = allocated_bytes(key_bytes + 4)
    return value + key + 16 + 24 + _TABLE_RESIZE_BYTES_PER_KEY


class ServingCopy:
    """The serving copy of one version of one application."""

    def __init__(self, client: redis.Redis, version: Version) -> None:
        self._client = client
        self._version = version
        self._prefix = keys.user_record_prefix(version.application, version.version).encode()
        self._consumed_prefix = keys.consumed_prefix(version.application, version.version).encode()

    def marker(self) -> dict[str, object] | None:
        """What the last complete load recorded (digest, users, bytes); None where there was none."""
        value = self._client.get(keys.load_marker(self._version.application, self._version.version))
        return dict(json.loads(value)) if value else None

    def require_loaded(self, manifest: Manifest) -> None:
        """Raise SnapshotNotLoaded unless exactly this manifest's copy is complete."""
        marker = self.marker()
        if marker is None or marker["digest"] != manifest.digest:
            seen = "is not in Redis" if marker is None else "in Redis is of another build"
            raise SnapshotNotLoaded(
                f"{self._version.label} {seen}.",
                mend=f"Run: python -m infra.snapshots load --application {manifest.application} "
                f"--version {manifest.version}",
            )

    def load(
        self, manifest: Manifest, *, limit_fraction: float, advance: Callable[[int], None] = lambda users: None
    ) -> LoadReport:
        """Load every record and read each one back; the marker is written last. Loading again is quick and changes nothing.

        Raises NotEnoughRoom before anything is written where used memory would pass `limit_fraction` of maxmemory,
        SnapshotNotLoaded where what was read back differs from what was written.
        """
        started = time.monotonic()
        marker = self.marker()
        if marker is not None and marker["digest"] == manifest.digest:
            users, payload = int(str(marker["users"])), int(str(marker["payload_bytes"]))
            if users == manifest.counts["users"] and self._sampled_present(manifest):
                return LoadReport(users, payload, int(str(marker["redis_bytes"])), 0.0, already_loaded=True)
        files = verify_part(self._version, manifest, CANDIDATES)
        self._preflight(files, manifest, limit_fraction=limit_fraction)
        self._client.delete(keys.load_marker(manifest.application, manifest.version))
        before = self._used_memory()
        users = payload = 0
        for chunk in self._chunks(files):
            self._write_and_read_back(chunk)
            records = sum(key.startswith(self._prefix) for key in chunk)
            users += records
            payload += sum(len(value) for value in chunk.values())
            advance(records)
        grown = self._used_memory() - before
        row = {"digest": manifest.digest, "users": users, "payload_bytes": payload, "redis_bytes": grown}
        self._client.set(keys.load_marker(manifest.application, manifest.version), json.dumps(row))
        return LoadReport(users, payload, grown, time.monotonic() - started, already_loaded=False)

    def delete(self) -> int:
        """Unlink the version's keys, marker first, in chunks small enough not to disturb readers. Returns how many."""
        return delete_version(self._client, self._version.application, self._version.version)

    def _preflight(self, files: list[str], manifest: Manifest, *, limit_fraction: float) -> None:
        memory = self._client.info("memory")
        limit = int(memory["maxmemory"]) or int(memory["total_system_memory"])
        wanted = 0
        for batch in candidate_batches(self._version.storage, files):
            ids = _byte_lengths(batch["user_id"].cast(pa.binary()))
            payloads = np.sum([_byte_lengths(batch[name]) for name in _PAYLOAD_COLUMNS], axis=0)
            older = _byte_lengths(batch["consumed"]) - _byte_lengths(batch["history"])
            for size, older_size, id_size in zip(payloads.tolist(), older.tolist(), ids.tolist(), strict=True):
                key_bytes = len(self._prefix) + id_size
                wanted += record_memory_bytes(payload_bytes=size + HEADER_BYTES, key_bytes=key_bytes)
                if older_size > 0:
                    wanted += record_memory_bytes(payload_bytes=older_size, key_bytes=key_bytes)
        free = int(limit * limit_fraction) - int(memory["used_memory"])
        if wanted > free:
            raise NotEnoughRoom(
                f"{self._version.label} needs {wanted / 2**20:.0f} MiB in Redis; {max(free, 0) / 2**20:.0f} MiB are free "
                f"below {limit_fraction:.0%} of its {limit / 2**20:.0f} MiB.",
                mend="Run: make gc, or raise maxmemory (HEADGATE_REDIS_MAXMEMORY_MB for the embedded Redis).",
            )

    def _chunks(self, files: list[str]) -> Iterator[dict[bytes, bytes]]:
        for batch in candidate_batches(self._version.storage, files, rows=_PIPELINE_KEYS):
            columns = [batch[name].to_pylist() for name in batch.schema.names]
            chunk = {}
            for _, user_id, item_indices, scores, features, history, consumed in zip(*columns, strict=True):
                record = UserRecord(
                    np.frombuffer(item_indices, "<i4"),
                    np.frombuffer(scores, "<f2"),
                    np.frombuffer(features, "<f2"),
                    np.frombuffer(history, "<i4"),
                )
                chunk[self._prefix + user_id.encode()] = pack(record)
                if len(consumed) > len(history):
                    older = np.setdiff1d(np.frombuffer(consumed, "<i4"), record.history)
                    chunk[self._consumed_prefix + user_id.encode()] = older.astype("<i4").tobytes()
            yield chunk

    def _write_and_read_back(self, chunk: dict[bytes, bytes]) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for key, value in chunk.items():
                pipe.set(key, value)
            for key in chunk:
                pipe.get(key)
            try:
                found = pipe.execute()[len(chunk) :]
            except redis.exceptions.OutOfMemoryError as error:
                raise NotEnoughRoom(
                    f"Redis ran out of memory while {self._version.label} was loaded; the alias has not moved.",
                    mend="Run: make gc, or raise maxmemory.",
                ) from error
        for (key, wanted), seen in zip(chunk.items(), found, strict=True):
            if seen != wanted:
                raise SnapshotNotLoaded(
                    f"{self._version.label}: {key!r} was read back with other bytes than were written; "
                    "the alias has not moved.",
                    mend="Run the load again; if it repeats, look for another writer on this Redis.",
                )

    def _sampled_present(self, manifest: Manifest, *, users: int = 200) -> bool:
        storage, files = self._version.storage, sorted(manifest.parts[CANDIDATES].files)
        sample: list[bytes] = []
        for name in files:
            batch = next(candidate_batches(storage, [name], rows=max(1, users // len(files))), None)
            if batch is not None:
                sample += [self._prefix + user_id.encode() for user_id in batch["user_id"].to_pylist()]
        with self._client.pipeline(transaction=False) as pipe:
            for key in sample:
                pipe.exists(key)
            return all(pipe.execute())

    def _used_memory(self) -> int:
        return int(self._client.info("memory")["used_memory"])


def delete_version(client: redis.Redis, application: ApplicationName, version: VersionName) -> int:
    """Unlink every key of a version in chunks. Returns how many there were."""
    client.delete(keys.load_marker(application, version))
    deleted, cursor = 0, 0
    while True:
        cursor, found = client.scan(cursor, match=keys.version_pattern(application, version), count=1000)
        if found:
            deleted += client.unlink(*found)
        if cursor == 0:
            return deleted


def _byte_lengths(column: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.binary_length(column), np.int64)
