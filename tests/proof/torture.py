"""torture: flips and rollbacks without end, each copy deleted once nobody needs it, under several reading processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

from infra.contracts.canaries import CanaryMode
from infra.contracts.snapshots import Alias, State
from infra.snapshots.promotion import Promotion
from infra.snapshots.serving_copy import delete_version
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.marked_snapshot import Shape, write_marked_snapshot
from tests.fixtures.tiny_snapshot import RANKING
from tests.proof.readers import Readers

VERSIONS = 24
"""So many that one is not in use any more, and was deleted, when its turn comes again."""

SHAPE = Shape(users=24)
LEASE_S = 0.5
"""Of these readers. The service's own is longer than all versions take to have their turn."""

_DWELL_S = 0.05
"""How long a canary runs: readers hear of it within a few milliseconds."""

PATIENCE_S = 1200.0

Delete = Callable[[Promotion, redis.Redis, Alias], int]


def collect(promotion: Promotion, client: redis.Redis, left: Alias) -> int:
    """What is neither live, previous nor leased. Returns how many versions."""
    return len(promotion.collect(keep=2))


def delete_at_once(promotion: Promotion, client: redis.Redis, left: Alias) -> int:
    """Broken on purpose: what a flip has just left, whoever reads it."""
    delete_version(client, RANKING, left.version)
    return 1


@dataclass
class Torture:
    """One run. flipped_s: generation -> when its flip returned, on the monotonic clock."""

    root: Path
    redis_url: str
    delete: Delete = collect
    flips: int = 0
    rollbacks: int = 0
    canaries: int = 0
    deleted: int = 0
    flipped_s: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = redis.Redis.from_url(self.redis_url)
        self._promotion = Promotion(SnapshotStore(str(self.root / "store"), RANKING), self._client)

    def prepare(self) -> None:
        """All versions sealed and validated, the first live."""
        store = self._promotion.store
        for number in range(VERSIONS):
            version = write_marked_snapshot(store, generation=0, shape=SHAPE)
            version.record(State.VALIDATED, actor="gate", reason="passed")
            if number < 2:
                self._go_to(number)

    def close(self) -> None:
        """Ends its connection."""
        self._client.close()

    def readers(self, *, processes: int, rereads: bool = False) -> Readers:
        """Those to put it under."""
        store = str(self.root / "store")
        return Readers(self.root, store, self.redis_url, SHAPE.users, processes, LEASE_S, rereads=rereads)

    def until(self, done: Callable[[Torture], bool]) -> None:
        """Flip on until that holds. Raises RuntimeError where it does not within PATIENCE_S."""
        ends_s = time.monotonic() + PATIENCE_S
        while not done(self):
            if time.monotonic() > ends_s:
                raise RuntimeError(f"not done after {self.flips} flips and {self.rollbacks} rollbacks")
            self.step()

    def step(self) -> None:
        """A flip to the version whose turn it is; each third time a rollback. What is of no use is deleted.

        Each fourth flip is of a version that was a canary for a moment before.
        """
        left = self._promotion.alias.read()
        if left is None:
            raise RuntimeError("nothing is live")
        if (self.flips + self.rollbacks) % 3 == 2:
            _, now = self._promotion.rollback(None, actor="on call", reason="torture", limit_fraction=1.0)
            self.rollbacks += 1
        else:
            now = self._go_to(self.flips % VERSIONS)
        self.flipped_s[now.generation] = time.monotonic()
        if now.version != left.version:
            self.deleted += self.delete(self._promotion, self._client, left)

    def _go_to(self, number: int) -> Alias:
        version = self._promotion.store.get(f"v{number + 1}")
        self._promotion.load(version, limit_fraction=1.0)
        if self.flips % 4 == 3 and version.state() is not State.LIVE:
            self._promotion.start_canary(version, 0.5, CanaryMode.CANARY, actor="build", reason="torture", force=True)
            self.canaries += 1
            time.sleep(_DWELL_S)
        alias = self._promotion.flip(version, actor="build", reason="torture", force=True)
        self.flips += 1
        return alias


def total(readers: Readers) -> Counter[str]:
    """What all of them found, by name."""
    names = ("reads", "requests", "of_canary", "torn", "missing", "restarted", "backwards")
    return Counter({name: sum(getattr(found, name) for found in readers.found) for name in names})
