"""events: what happened to whom, as a service takes it, and the records that the log keeps of it: one for each entity."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from infra.contracts.ids import ItemId, UserId

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""An event may claim to be this far in the future: clocks differ."""

MAX_TYPE_BYTES = 64

SHARDS = 16
"""Of every application's log; what is kept of an entity lies with its shard. One worker process takes several, at most one each."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `event_time` is when (aware UTC); the log says itself when it took it.

    entities: kind -> id of all that it concerns: {"user": "u1", "item": "i9"}. values: what else it says, by field; money in
    minor units.
    """

    event_id: str
    event_type: str
    event_time: datetime
    entities: Mapping[str, str]
    values: Mapping[str, Value] = field(default_factory=dict)

    def records(self) -> list[Record]:
        """One record an entity, in the order of `entities`; each holds all that the event says."""
        time_us = (self.event_time - _EPOCH) // timedelta(microseconds=1)
        said: dict[str, Value] = {f"{kind}_id": name for kind, name in self.entities.items()}
        said.update(self.values)
        return [
            Record(kind, name, self.event_type, time_us, self.event_id, said) for kind, name in self.entities.items()
        ]


class Record(NamedTuple):
    """An event as the shard of one of its entities keeps it.

    kind, entity_id: whose record it is. event_time_us: microseconds since 1970, UTC. values: every entity of the event as
    "<kind>_id", and its fields.
    """

    kind: str
    entity_id: str
    event_type: str
    event_time_us: int
    event_id: str
    values: dict[str, Value]

    @property
    def shard(self) -> int:
        """Where it belongs."""
        return shard_of(self.kind, self.entity_id)

    @property
    def duplicate_key(self) -> str:
        """Equal for two records of which a log, or whoever reads it, keeps the first: one an entity and event id."""
        return f"{self.kind}:{self.entity_id}:{self.event_id}"

    @property
    def event_time(self) -> datetime:
        """Aware UTC."""
        return _EPOCH + timedelta(microseconds=self.event_time_us)

    @property
    def user_id(self) -> UserId:
        """The user it concerns; empty where it concerns none."""
        return UserId(str(self.values.get("user_id", "")))

    @property
    def item_id(self) -> ItemId:
        """The item it concerns; empty where it concerns none."""
        return ItemId(str(self.values.get("item_id", "")))


def shard_of(kind: str, entity_id: str) -> int:
    """The shard of an entity, 0 to SHARDS - 1: CRC-32 of kind and id, the same in every process and language."""
    return zlib.crc32(f"{kind}:{entity_id}".encode()) % SHARDS
