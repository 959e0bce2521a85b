"""stream: counts events in Redis as the worker does, without a log and by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import redis.asyncio

from infra.catalog.events.ranking import RANKING_EVENTS
from infra.catalog.features.nearline import plan_of
from infra.contracts.events import SHARDS, Event, Record
from infra.contracts.features import Deltas
from infra.contracts.ids import ApplicationName
from infra.nearline.boards import BoardReader
from infra.nearline.state import Changes, Claim, StateStore
from infra.snapshots import keys

PLAN = plan_of("ranking")


class Stream:
    """Offsets go up by one a record, in every shard."""

    def __init__(self, client: redis.asyncio.Redis, application: ApplicationName) -> None:
        self.client = client
        self.application = application
        self.records: list[tuple[int, Record]] = []
        self._store = StateStore(client, application, PLAN)
        self._claims: dict[int, Claim] = {}

    async def happened(self, *events: Event) -> None:
        """Count them, one call a shard."""
        for shard in range(SHARDS):
            own = [record for event in events for record in event.records() if record.shard == shard]
            if own:
                await self._apply(shard, own)

    async def clicked(self, item: str, times: int = 1, *, ago_s: float = 1.0, what: str = "click") -> None:
        """By as many users."""
        at = datetime.fromtimestamp(time.time() - ago_s, UTC)
        number = len(self.records)
        await self.happened(
            *(Event(f"e{number}.{user}", what, at, {"user": f"x{user}", "item": item}) for user in range(times))
        )

    async def added(self, item: str, *, ago_s: float = 60.0, **said: str) -> None:
        """As the event says it: title, creator, genres."""
        at = datetime.fromtimestamp(time.time(), UTC) - timedelta(seconds=ago_s)
        body = {"event_type": "item_added", "item_id": item, "event_time": at.isoformat(), **said}
        await self.happened(RANKING_EVENTS.parse(body, now=datetime.now(UTC)))

    async def board(self) -> BoardReader:
        """A reader that has read once."""
        reader = BoardReader(self.client, self.application, PLAN, kind="item")
        await reader.refresh(time.time_ns() // 1000)
        return reader

    async def forget(self) -> None:
        """Take all that it counted out again."""
        written = [key async for key in self.client.scan_iter(match=keys.nearline_state_pattern(self.application))]
        positions = [keys.nearline_position(self.application, shard) for shard in range(SHARDS)]
        await self.client.unlink(*written, *positions)

    async def _apply(self, shard: int, records: list[Record]) -> None:
        claim = self._claims.get(shard) or await self._store.claim(shard, "worker")
        assert claim is not None
        deltas: Deltas = {}
        PLAN.accumulate(records, deltas)
        upto = claim.offset + len(records)
        (fenced,) = (await self._store.apply({shard: claim}, {shard: Changes(claim.offset, upto, deltas)})).values()
        assert fenced is None
        self.records += [(claim.offset + at, record) for at, record in enumerate(records, 1)]
        self._claims[shard] = replace(claim, offset=upto)
