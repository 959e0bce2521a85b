"""journal: every flip as a file beside the snapshots, one a generation, created if absent: the truth about what is live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from infra.contracts.snapshots import FlipRecord, VoidRecord
from infra.snapshots.storage import Storage


@dataclass(frozen=True, slots=True)
class Tip:
    """The journal's end. record: the newest flip that is not void; highest: the highest generation used, void or not."""

    record: FlipRecord | None
    highest: int


class Journal:
    """One application's flips: `<generation>.json`, and `<generation>.void.json` for one that shall never be applied."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def append(self, record: FlipRecord) -> bool:
        """Write the record of its generation; False where that generation has one: of two writers one wins."""
        return self._storage.create(_path(record.generation), record.to_json().encode())

    def void(self, generation: int, *, actor: str, reason: str) -> None:
        """Say for ever that this flip shall not be applied; saying it again changes nothing."""
        void = VoidRecord(generation, datetime.now(UTC), actor, reason)
        row = asdict(void) | {"at": void.at.isoformat()}
        self._storage.create(_void_path(generation), json.dumps(row, indent=1).encode())

    def tip(self) -> Tip:
        """The end, by one listing and (but for void records) one read."""
        generations, voids = self._listing()
        highest = generations[-1] if generations else 0
        for generation in reversed(generations):
            if generation not in voids:
                return Tip(self.read(generation), highest)
        return Tip(None, highest)

    def read(self, generation: int) -> FlipRecord:
        """One generation's record; raises FileNotFoundError."""
        return FlipRecord.from_json(self._storage.read(_path(generation)))

    def newest(self, count: int) -> Iterator[tuple[FlipRecord, VoidRecord | None]]:
        """The last `count` records, newest first, each with what voided it."""
        generations, voids = self._listing()
        for generation in reversed(generations[-count:]):
            yield self.read(generation), self._void(generation) if generation in voids else None

    def prune(self, *, keep: int, before: datetime) -> int:
        """Delete records that are older than that, but for the newest `keep` and the newest that is not void. Returns how many."""
        generations, voids = self._listing()
        standing = next((generation for generation in reversed(generations) if generation not in voids), 0)
        deleted = 0
        for generation in generations[: -max(keep, 1)]:
            if generation >= standing or self.read(generation).at >= before:
                break
            self._storage.remove(_path(generation))
            self._storage.remove(_void_path(generation))
            deleted += 1
        return deleted

    def _void(self, generation: int) -> VoidRecord:
        row = json.loads(self._storage.read(_void_path(generation)))
        return VoidRecord(row["generation"], datetime.fromisoformat(row["at"]), row["actor"], row["reason"])

    def _listing(self) -> tuple[list[int], set[int]]:
        names = self._storage.names()
        voids = {int(name.split(".")[0]) for name in names if name.endswith(".void.json")}
        return [int(name.split(".")[0]) for name in names if name.count(".") == 1], voids


def _path(generation: int) -> str:
    return f"{generation:012d}.json"


def _void_path(generation: int) -> str:
    return f"{generation:012d}.void.json"
