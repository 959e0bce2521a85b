"""sealed: snapshots and their users' records as the service had them, from the store alone: for answers that are made again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.ranking.content import RankingSnapshot, load_content
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Alias, Manifest
from infra.snapshots import keys
from infra.snapshots.pinned import Pinned
from infra.snapshots.records import RECORD_COLUMNS, records_of
from infra.snapshots.tables import CANDIDATES
from infra.snapshots.versions import SnapshotStore, Version

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class SealedUsers:
    """What Redis held for some users of one version, packed from its Parquet as a load packs it."""

    def __init__(self, version: Version, manifest: Manifest) -> None:
        self._version = version
        self._manifest = manifest
        self._values: dict[bytes, bytes] = {}
        self._known: set[str] = set()

    def look_up(self, user_ids: Collection[str]) -> None:
        """Read those that are not known yet: the ids of all users, and the row groups that hold any of these."""
        wanted = set(user_ids) - self._known
        if not wanted:
            return
        names = pa.array(sorted(wanted), pa.string())
        for path in sorted(self._manifest.parts[CANDIDATES].files):
            with self._version.storage.open(path) as file:
                parquet = pq.ParquetFile(file)
                for group in range(parquet.num_row_groups):
                    is_wanted = pc.is_in(parquet.read_row_group(group, ["user_id"])["user_id"], value_set=names)
                    if pc.any(is_wanted).as_py():
                        rows = parquet.read_row_group(group, list(RECORD_COLUMNS)).filter(is_wanted)
                        for batch in rows.combine_chunks().to_batches():
                            found = records_of(batch)
                            self._values.update(zip(found.keys, found.values, strict=True))
        self._known |= wanted

    def record(self, user_id: str) -> bytes | None:
        """The packed record; None for a user whom the batch did not know."""
        return self._values.get(keys.RECORD.encode() + user_id.encode())

    def older(self, user_id: str) -> bytes:
        """What was consumed before the record's history: int32 little-endian; empty where the record holds all."""
        return self._values.get(keys.CONSUMED.encode() + user_id.encode(), b"")


class SealedSnapshots:
    """An application's versions, each read and verified once and held in memory."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._held: dict[VersionName, tuple[RankingSnapshot, SealedUsers]] = {}

    def get(self, name: VersionName) -> tuple[RankingSnapshot, SealedUsers]:
        """A version as a request pinned it, but for the alias's own story. Raises SnapshotNotFound, SnapshotCorrupt."""
        held = self._held.get(name)
        if held is None:
            version = self._store.get(name)
            manifest = version.manifest()
            alias = Alias(name, 0, manifest.digest, _LONG_AGO, "", "")
            pinned = Pinned(alias, manifest, load_content(version, manifest), _LONG_AGO, 0.0)
            held = self._held[name] = (pinned, SealedUsers(version, manifest))
        return held
