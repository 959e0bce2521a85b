"""reader: a process that reads users as the service does, by the version it pinned: `python -m tests.proof.reader --help`.

A request pins what its user is served (the live version, or a canary), then reads some users in two round trips, and finds the
mark of the pinned version on each record, or else counts it: torn where a record is of another version or user, missing where
there is none although its version was leased. It goes on until its stdin is closed, and writes what it found to a file twice a
second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast
from unittest.mock import patch

import numpy as np
import uvloop

from infra.contracts.exposures import Arm
from infra.contracts.ids import VersionName, version_number
from infra.contracts.snapshots import Manifest
from infra.snapshots import keys, live
from infra.snapshots.connection import serving_client
from infra.snapshots.leases import LEASE_S
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.pinned import Pinned
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.marked_snapshot import mark_of, user_id
from tests.fixtures.tiny_snapshot import RANKING

TRIP_USERS = 4
_CALLERS = 2
_REPORT_S = 0.5


@dataclass(slots=True)
class Found:
    """What a reader saw so far. reads: records asked for; of_canary: requests that a canary answered.

    restarted: requests begun again because their lease had run out.

    switched_s: generation -> when it was served here first, on the monotonic clock that all processes share.
    latency: (moment due, milliseconds) of each request where they come at a set rate.
    """

    reads: int = 0
    requests: int = 0
    of_canary: int = 0
    torn: int = 0
    missing: int = 0
    restarted: int = 0
    backwards: int = 0
    ended: bool = False
    switched_s: dict[str, float] = field(default_factory=dict)
    latency: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Found:
        """What the process wrote last; nothing found where it has not begun."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


class Reader:
    """One process's watch over the alias, and its requests."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._client = serving_client(chosen.redis, timeout_s=10.0)
        self._live: LiveSnapshots[int] = LiveSnapshots(self._client, SnapshotStore(chosen.store, RANKING), _number)
        self._rng = np.random.default_rng(os.getpid())
        self._chosen = chosen
        self._generation = 0
        self._stop = asyncio.Event()
        self.found = Found()

    async def run(self) -> None:
        """Until stdin is closed."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._stop.set)
        await self._live.start()
        while self._live.current is None:
            await asyncio.sleep(0.01)
        work = [asyncio.create_task(self._paced() if self._chosen.per_s else self._caller()) for _ in range(_CALLERS)]
        while not self._stop.is_set():
            self._write()
            try:
                async with asyncio.timeout(_REPORT_S):
                    await self._stop.wait()
            except TimeoutError:
                continue
        await asyncio.gather(*work)
        self.found.ended = True
        self._write()
        await self._live.stop()
        await self._client.aclose()

    async def _caller(self) -> None:
        """Asks again as soon as it was answered."""
        while not self._stop.is_set():
            await self._request()

    async def _paced(self) -> None:
        """Asks at the moments of a Poisson process; each latency counts from the moment that was due."""
        due_s = time.monotonic()
        while not self._stop.is_set():
            due_s += self._rng.exponential(_CALLERS / self._chosen.per_s)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._request()
            self.found.latency.append((round(due_s, 6), round((time.monotonic() - due_s) * 1000, 4)))

    async def _request(self) -> None:
        """One request; where its lease ran out on the way it looks again and starts anew once, as the service does."""
        leased_until_s = self._live.lease()
        torn, missing = await self._read()
        if missing and self._live.outlived(leased_until_s):
            self.found.restarted += 1
            await self._live.check()
            leased_until_s = self._live.lease()
            torn, missing = await self._read()
            missing = 0 if self._live.outlived(leased_until_s) else missing
        self.found.requests += 1
        self.found.torn += torn
        self.found.missing += missing

    async def _read(self) -> tuple[int, int]:
        """(torn, missing) of one try."""
        asker = user_id(int(self._rng.integers(0, self._chosen.users)))
        pinned = self._pin(asker)
        torn = missing = 0
        for trip in range(2):
            at = self._pin(asker) if trip and self._chosen.rereads else pinned
            users = self._rng.integers(0, self._chosen.users, TRIP_USERS).tolist()
            names = [keys.user_record(RANKING, at.alias.version, user_id(user)) for user in users]
            found = cast("list[bytes | None]", await self._client.mget(names))
            self.found.reads += len(users)
            missing += found.count(None)
            wanted = [(pinned.content, user) for user in users]
            torn += sum(value is not None and mark_of(value) != mark for value, mark in zip(found, wanted, strict=True))
        return torn, missing

    def _pin(self, asker: str) -> Pinned[int]:
        assigned = self._live.assign(asker)
        if assigned is None:
            raise RuntimeError("what was served is served no more")
        pinned = assigned.shown
        self.found.of_canary += assigned.arm is Arm.CANARY
        generation = pinned.alias.generation
        if generation != self._generation:
            self.found.backwards += generation < self._generation
            self.found.switched_s.setdefault(str(generation), time.monotonic())
            self._generation = generation
        return pinned

    def _write(self) -> None:
        path: Path = self._chosen.out
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self.found) | ({} if self.found.ended else {"latency": []})))
        draft.replace(path)


def _number(version: Version, manifest: Manifest) -> int:
    return version_number(VersionName(manifest.version))


async def _main(chosen: argparse.Namespace) -> None:
    await Reader(chosen).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--out", type=Path, required=True, help="the file that it writes what it found to")
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--lease-s", type=float, default=LEASE_S)
    parser.add_argument("--per-s", type=float, default=0.0, help="requests a second; 0: as many as it can")
    parser.add_argument(
        "--rereads", action="store_true", help="broken on purpose: look at the alias again in a request"
    )
    chosen = parser.parse_args()
    with patch.object(live, "LEASE_S", chosen.lease_s):
        uvloop.run(_main(chosen))


if __name__ == "__main__":
    main()
