"""town: users whose lists and clicks are in real logs, and an operator who types commands on canaries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.config.settings import settings
from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.events import SHARDS, Event
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId, VersionName
from infra.contracts.snapshots import Alias, State
from infra.eventlog.exposures import RedisExposureLog
from infra.eventlog.records import encode
from infra.snapshots import keys
from infra.snapshots.connection import batch_client, serving_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.storage import Storage
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.marked_snapshot import write_marked_snapshot
from tests.fixtures.tiny_snapshot import RANKING
from tests.unit.infra.snapshots.shell_operator import Operator

VISIT_S = 20.0
"""A visit; with the ten seconds of grace it is over for whoever came `AGO_S` ago, and within what is read of the logs."""

AGO_S = 32.0


class Town(Operator):
    """v1 is live, v2 and v3 may go live and are loaded."""

    def __init__(
        self, store: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        super().__init__(store, url, monkeypatch, capsys)
        self._url = url
        self.set(
            HEADGATE_VISIT_MINUTES=str(VISIT_S / 60),
            HEADGATE_CANARY_USERS="100",
            HEADGATE_CANARY_TOLERANCE="0.5",
            HEADGATE_CANARY_CONVERSION_TOLERANCE="0.5",
            COLUMNS="200",
        )
        self.client = batch_client(url)
        self.client.flushall()
        self.promotion = Promotion(SnapshotStore(str(store), RANKING), self.client)
        for number in range(3):
            version = write_marked_snapshot(self.promotion.store, generation=min(number, 1))
            version.record(State.VALIDATED, actor="gate", reason="test")
            self.promotion.load(version, limit_fraction=1.0)
            if number == 0:
                self.promotion.flip(version, actor="ada", reason="first")

    def close(self) -> None:
        self.client.flushall()
        self.client.close()
        self._monkeypatch.undo()
        settings.cache_clear()

    @property
    def alias(self) -> Alias:
        alias = self.promotion.alias.read()
        assert alias is not None
        return alias

    @property
    def canary(self) -> Canary:
        assert self.alias.canary is not None
        return self.alias.canary

    @property
    def shards(self) -> list[str]:
        """The streams of events."""
        return [keys.event_log(RANKING, shard) for shard in range(SHARDS)]

    def state(self, name: str) -> State:
        return self.promotion.store.get(name).state()

    def try_out(self, *, mode: CanaryMode = CanaryMode.CANARY, fraction: float = 0.5, version: str = "v2") -> Canary:
        said = self("canary", "start", "--version", version, "--fraction", str(fraction), "--mode", mode)
        assert said.code == 0, said
        return self.canary

    def visits(self, users: int, *, clicks: tuple[float, float], unserved: bool = False, log_url: str = "") -> None:
        """One list a user of the canary's generation, clicked by that share of (live, canary) users; half of clickers buy."""
        alias, canary = self.alias, self.canary
        lists, events = [], []
        counts = [0, 0]
        for number in range(users):
            user = f"u{number}"
            tried = canary.takes(user)
            version = canary.version if tried and not unserved else alias.version
            lists.append(self.list_of(user, arm=Arm.CANARY if tried else Arm.LIVE, version=version))
            counts[tried] += 1
            clicks_now = int(counts[tried] * clicks[tried]) - int((counts[tried] - 1) * clicks[tried])
            if clicks_now:
                events.append((user, "purchase" if number % 2 else "click"))
        self.log(lists, events, log_url=log_url)

    def list_of(
        self, user: str, *, arm: Arm, version: VersionName, ago_s: float = AGO_S, generation: int | None = None
    ) -> Exposure:
        return Exposure(
            request_id=f"r-{user}",
            user_id=UserId(user),
            at=datetime.now(UTC) - timedelta(seconds=ago_s),
            generation=self.alias.generation if generation is None else generation,
            version=version,
            arm=arm,
            items=(ItemId("i1"), ItemId("i2")),
            total_ms=12.0,
            degraded=False,
        )

    def log(
        self,
        lists: Sequence[Exposure],
        events: Sequence[tuple[str, str]] = (),
        *,
        ago_s: float = AGO_S - 1,
        log_url: str = "",
    ) -> None:
        """Append to the real logs; events by the log's own layout, at a moment in the past. log_url: of the Redis of events."""
        asyncio.run(self._append(lists))
        at_ms = round((datetime.now(UTC).timestamp() - ago_s) * 1000)
        with batch_client(log_url or self._url) as client:
            tips = {shard: int(client.get(keys.event_log_tip(RANKING, shard)) or 0) for shard in range(SHARDS)}
            pipe = client.pipeline()
            for number, (user, what) in enumerate(events):
                at = datetime.fromtimestamp(at_ms / 1000, UTC)
                event = Event(f"{user}-{number}", what, at, {"user": user, "item": "i2"})
                for record in event.records():
                    tips[record.shard] += 1
                    entry_id = f"{tips[record.shard]}-{at_ms}"
                    pipe.xadd(keys.event_log(RANKING, record.shard), {"r": encode(record)}, id=entry_id)
            for shard, tip in tips.items():
                pipe.set(keys.event_log_tip(RANKING, shard), tip)
            pipe.execute()

    async def _append(self, lists: Sequence[Exposure]) -> None:
        client = serving_client(self._url, timeout_s=10)
        await RedisExposureLog(client, keys.exposure_log(RANKING), kept=1_000_000).append(lists)
        await client.aclose()

    def flipped_long_ago(self, hours: float) -> None:
        """As if the newest flip had been made so long ago: its record's time is moved back."""
        journal = Storage(str(self.store / RANKING / "journal"))
        path = f"{self.alias.generation:012d}.json"
        row = json.loads(journal.read(path))
        row["at"] = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        journal.write(path, json.dumps(row).encode())
