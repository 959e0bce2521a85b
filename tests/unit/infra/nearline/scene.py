"""A log, a state, an archive and an application of a test's own, driven by hand: one step at a time, in any order."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import redis.asyncio

from infra.catalog.features.nearline import plan_of
from infra.contracts.events import SHARDS, Event
from infra.contracts.features import FeaturePlan
from infra.contracts.ids import ApplicationName
from infra.eventlog.redis_streams import RedisStreamLog
from infra.nearline.applying import apply_all
from infra.nearline.archive import Archiver
from infra.nearline.opening import stream_layout
from infra.nearline.state import StateStore
from infra.nearline.state_terms import StateTerms
from infra.nearline.trimming import Consumers, Trimmer
from infra.snapshots.connection import serving_client
from infra.snapshots.storage import Storage

HORIZON = 8
TYPES = ("view", "click", "purchase", "search")


@dataclass
class Scene:
    """appended: by shard, what the log was given and took, as (offset, payload)."""

    application: ApplicationName
    client: redis.asyncio.Redis
    log: RedisStreamLog
    archive: Storage
    plan: FeaturePlan
    store: StateStore
    appended: dict[int, list[int]] = field(default_factory=dict)

    async def append(self, events: Iterable[Event]) -> None:
        for place in await self.log.append([record for event in events for record in event.records()]):
            if not place.duplicate:
                self.appended.setdefault(place.shard, []).append(place.offset)

    async def work(self, *, count: int = 1000) -> None:
        """Every shard's next records, as a worker with a claim of its own."""
        for shard in range(SHARDS):
            claim = await self.store.claim(shard, "worker")
            assert claim is not None
            pieces = await self.log.read({shard: claim.offset}, count=count)
            await apply_all(pieces, claim, self.store, self.plan, horizon=None)

    async def lose_redis(self) -> None:
        """As if Redis had come back without its memory."""
        written = [key async for key in self.client.scan_iter(match=f"hg:*{self.application}*", count=5000)]
        for at in range(0, len(written), 500):
            await self.client.unlink(*written[at : at + 500])

    def archiver(self, *, records: int = 1_000_000, seconds: float = 1e9) -> Archiver:
        return Archiver(self.log, self.archive, records=records, seconds=seconds)

    def trimmer(self, *, kept: int = HORIZON) -> Trimmer:
        consumers = Consumers(self.client, self.application)
        terms = StateTerms(self.client, self.application)
        return Trimmer(self.log, self.store, self.archive, consumers, terms, kept_records=kept, horizon=HORIZON)


@asynccontextmanager
async def scene(url: str, store: str, *, log_url: str = "") -> AsyncIterator[Scene]:
    """Cleans up what it wrote to Redis. log_url: of a Redis that holds the log alone."""
    application = ApplicationName(f"t{uuid.uuid4().hex[:10]}")
    client = serving_client(url, timeout_s=5.0)
    log = RedisStreamLog(serving_client(log_url or url, timeout_s=5.0), stream_layout(application, horizon=HORIZON))
    plan = plan_of("ranking")
    archive = Storage(store).below(f"{application}/archive")
    made = Scene(application, client, log, archive, plan, StateStore(client, application, plan))
    try:
        yield made
    finally:
        await made.lose_redis()
        await log.close()
        await client.aclose()


def event(number: int, *, user: int = 0, item: int = 0, kind: str = "click", age_s: float = 60.0) -> Event:
    """An event of a moment ago; equal numbers make equal event ids."""
    entities = {"user": f"u{user}"} if kind == "search" else {"user": f"u{user}", "item": f"i{item}"}
    values = {"query": f"q{item}"} if kind == "search" else {}
    return Event(f"e{number}", kind, datetime.now(UTC) - timedelta(seconds=age_s), entities, values)


def some(numbers: Iterable[int]) -> list[Event]:
    """Events of several users and items."""
    return [event(number, user=number % 7, item=number % 5, kind=TYPES[number % len(TYPES)]) for number in numbers]
