"""world: a real Redis and a real store, the faults that befall them, and what an onlooker may expect of both at any moment."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import redis

from infra.contracts.canaries import CanaryMode
from infra.contracts.ids import VersionName, alias_value
from infra.contracts.snapshots import Alias, FlipRecord, Manifest
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from infra.snapshots.flips import PROMOTABLE
from infra.snapshots.leases import Leases
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.marked_snapshot import TINY, mark_of, marked_records, user_id, write_marked_snapshot
from tests.fixtures.mortal import Life, mortal_promotion
from tests.fixtures.redis_memory import Memory, put_back, remembered
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import RANKING


@dataclass
class Request:
    """One request of a reader: the version it pinned, and what had happened to Redis by then."""

    number: int
    version: VersionName
    leased_until_s: float
    faults: int
    sure: bool


@dataclass
class Reader:
    """A service's look at the alias, and a request that is under way."""

    live: LiveSnapshots[VersionName]
    looked_at: int = -1
    generation: int = 0
    request: Request | None = None


@dataclass
class World:
    """One application. faults: how often Redis lost something; damaged: the versions that lost it and were not loaded since."""

    server: RedisProcess
    root: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="headgate-proof-"))
    faults: int = 0
    damaged: set[VersionName] = field(default_factory=set)
    flips: dict[int, FlipRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = redis.ConnectionPool.from_url(self.server.url)
        self.client = redis.Redis(connection_pool=self.pool)
        self.client.flushall()
        self.client.config_set("maxmemory", 0)
        self.client.config_set("appendfsync", "no")  # processes are killed here, not the machine
        self.store = SnapshotStore(self.root, RANKING)
        self.leases = Leases(self.client, RANKING)
        self.loop = asyncio.new_event_loop()
        self.readers = [self.new_reader() for _ in range(2)]
        self.memory: Memory = {}
        self._records: dict[VersionName, dict[bytes, bytes]] = {}

    def close(self) -> None:
        for reader in self.readers:
            self.forget(reader)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.client.config_set("maxmemory", 0)
        self.pool.disconnect()
        shutil.rmtree(self.root, ignore_errors=True)

    def operator(self, life: Life | None = None) -> Promotion:
        """A process of an operator's that ends with that life."""
        return mortal_promotion(self.root, RANKING, self.pool, life or Life())

    def build(self) -> Version:
        """Opened now, sealed now."""
        generation = self.operator().flips.look().generation
        version = write_marked_snapshot(self.store, generation=generation)
        self._records[version.version] = marked_records(self.store, version.version)
        return version

    # -- looking

    @property
    def versions(self) -> list[VersionName]:
        return list(self._records)

    def alias(self) -> Alias | None:
        return self.operator().alias.read()

    def path(self) -> list[VersionName]:
        return [target.version for target in self.operator().flips.look().path]

    def complete(self) -> set[VersionName]:
        """The versions that are said to be loaded and each of whose records is the sealed one."""
        return {name for name in self.marked() if self.wrong(name) == []}

    def marked(self) -> set[VersionName]:
        markers = {keys.load_marker(RANKING, name): name for name in self.versions}
        found = self.client.mget(list(markers)) if markers else []
        return {name for name, value in zip(markers.values(), found, strict=True) if value is not None}

    def wrong(self, name: VersionName) -> list[bytes]:
        """The keys of a version that are not as sealed."""
        wanted = self._records[name]
        found = cast("list[bytes | None]", self.client.mget(list(wanted)))
        return [key for key, value in zip(wanted, found, strict=True) if wanted[key] != value]

    def in_use(self, *, keep: int = 2) -> set[VersionName]:
        """Live, a canary, previous, retained or leased."""
        alias = self.alias()
        named = {alias.version, *([alias.canary.version] if alias.canary else [])} if alias else set()
        return named | {*self.path()[-keep:], *self.leases.readers()}

    # -- readers

    def new_reader(self) -> Reader:
        async def made() -> LiveSnapshots[VersionName]:
            client = serving_client(self.server.url, timeout_s=5.0)
            return LiveSnapshots(client, self.store, _name)

        return Reader(self.loop.run_until_complete(made()))

    def look(self, reader: Reader) -> None:
        """The reader's watch comes by once; a canary that it has begun to load is loaded at once."""
        self.loop.run_until_complete(_looked(reader.live))
        if not reader.live.redis_problem:
            reader.looked_at = self.faults

    def forget(self, reader: Reader) -> None:
        """The reader's process ends; its leases lapse by themselves."""
        self.loop.run_until_complete(reader.live.stop())
        self.loop.run_until_complete(reader.live._client.aclose())

    def begin(self, reader: Reader, *, user: str) -> None:
        """A request pins what that user is served."""
        assigned = reader.live.assign(user)
        if assigned is not None:
            name = assigned.shown.alias.version
            sure = reader.looked_at == self.faults and name in self.complete()
            reader.request = Request(int(name[1:]), name, reader.live.lease(), self.faults, sure)

    def end(self, reader: Reader) -> list[str]:
        """The request reads all users by the version it pinned. What is wrong with what it found."""
        request = reader.request
        if request is None:
            return []
        reader.request = None
        names = [keys.user_record(RANKING, request.version, user_id(user)) for user in range(TINY.users)]
        found = cast("list[bytes | None]", self.client.mget(names))
        marks = {(user, mark_of(value)) for user, value in enumerate(found) if value is not None}
        said = [
            f"{mark} for user {user} of v{request.number}" for user, mark in marks if mark != (request.number, user)
        ]
        excused = not request.sure or request.faults != self.faults or reader.live.outlived(request.leased_until_s)
        if None in found and not excused:
            said.append(f"{found.count(None)} users of {request.version} are missing, which was leased")
        return said

    # -- faults

    def lost(self, *names: VersionName) -> None:
        """Redis lost something of those versions, or of all."""
        self.faults += 1
        self.damaged |= set(names or self.versions)

    def restart(self, *, empty: bool) -> None:
        """A power cut for Redis; what it had on disk is there again, or is not."""
        self.server.kill()
        if empty:
            shutil.rmtree(self.server.folder / "appendonlydir")
        self.server.start()
        self.client.config_set("appendfsync", "no")
        if empty:
            self.lost()

    def lag(self) -> None:
        """A replica remembers all there is now; it will hear of nothing later."""
        self.memory = remembered(self.client)

    def fail_over(self) -> None:
        """That replica takes over."""
        put_back(self.client, self.memory)
        self.lost()

    def evict(self, draw: Callable[[list[bytes]], bytes]) -> None:
        """A Redis with another policy drops a key."""
        names = sorted(self.client.scan_iter(count=1000))
        if names:
            name = draw(names)
            self.client.delete(name)
            versions = [version for version in self.versions if f":{version}:".encode() in name]
            self.lost(*versions)

    # -- what must hold at any moment

    def broken(self) -> list[str]:
        """Everything that must hold and does not."""
        return [*self._alias_broken(), *self._journal_broken(), *self._copies_broken(), *self._readers_broken()]

    def _alias_broken(self) -> list[str]:
        alias = self.alias()
        if alias is None:
            return []
        said = []
        named = {alias.version: alias.digest} | ({alias.canary.version: alias.canary.digest} if alias.canary else {})
        for name, digest in named.items():
            version = self.store.get(name)
            if version.state() not in PROMOTABLE:
                said.append(f"{alias_value(name)} is served and {version.state()}")
            if version.manifest().digest != digest:
                said.append(f"the alias has a digest of {name} that is not the sealed one")
        if not self.journalled(alias):
            said.append(f"generation {alias.generation} is not in the journal as the alias says it")
        return said

    def journalled(self, alias: Alias) -> bool:
        record = self.flips.get(alias.generation) or self.store.journal.read(alias.generation)
        named = (record.target.version, record.target.digest, record.canary)
        return named == (alias.version, alias.digest, alias.canary)

    def _journal_broken(self) -> list[str]:
        files = Path(f"{self.root}/{RANKING}/journal").glob("*.json")
        generations = sorted(int(file.stem) for file in files if file.stem.isdigit())
        said = [] if generations == list(range(1, len(generations) + 1)) else [f"the journal has gaps: {generations}"]
        for generation in generations:
            seen, before = self.store.journal.read(generation), self.flips.get(generation)
            if before not in (None, seen):
                said.append(f"the record of generation {generation} changed")
            self.flips[generation] = seen
        if not set(self.flips) <= set(generations):
            said.append("records left the journal")
        return said

    def _copies_broken(self) -> list[str]:
        complete = self.complete()
        self.damaged -= complete
        torn = self.marked() - complete - self.damaged
        return [f"{name} is called loaded and is not: {self.wrong(name)[:2]}" for name in torn]

    def _readers_broken(self) -> list[str]:
        said = []
        for reader in self.readers:
            pinned = reader.live.current
            if pinned is None:
                continue
            if pinned.alias.generation < reader.generation:
                said.append(f"a reader went from generation {reader.generation} to {pinned.alias.generation}")
            if not self.journalled(pinned.alias) or pinned.content != pinned.alias.version:
                said.append(f"a reader serves {pinned.content} as {pinned.alias}, which no flip named")
            reader.generation = pinned.alias.generation
            said += _canary_broken(reader)
        return said


def _canary_broken(reader: Reader) -> list[str]:
    """A user gets the canary where the alias that is served names it, and nothing else ever."""
    live = reader.live.current
    canary = live.alias.canary if live is not None else None
    said = []
    for user in ("0", "1", "2", "3"):
        assigned = reader.live.assign(user)
        shown = assigned.shown.content if assigned is not None else None
        takes = canary is not None and canary.takes(user) and canary.mode is CanaryMode.CANARY
        allowed = {live.alias.version if live else None, canary.version if takes and canary else None}
        if shown not in allowed:
            said.append(f"user {user} is shown {shown}, of {allowed}")
    return said


async def _looked(live: LiveSnapshots[VersionName]) -> None:
    await live.check()
    while live.canary_problem.endswith("is being loaded"):
        await asyncio.sleep(0.001)
        await live.check()


def _name(version: Version, manifest: Manifest) -> VersionName:
    return manifest.version
