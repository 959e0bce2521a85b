"""events: what a user did to an item, as the service takes it and the log keeps it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.contracts.errors import InvalidRequest
from infra.contracts.ids import ItemId, UserId, check_id

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""An event may claim to be this far in the future: clocks differ."""

MAX_TYPE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction. `event_time` is when it happened (aware UTC); the log's own position says when it was taken."""

    event_id: str
    user_id: UserId
    item_id: ItemId
    event_type: str
    event_time: datetime
    value: float | None = None

    def check(self, *, now: datetime) -> None:
        """Raise InvalidRequest where a field cannot be: empty or long ids, a naive, negative or future time, NaN."""
        check_id(self.user_id, what="user_id")
        check_id(self.item_id, what="item_id")
        check_id(self.event_id, what="event_id")
        if not 0 < len(self.event_type.encode()) <= MAX_TYPE_BYTES:
            raise InvalidRequest(f"event_type has {len(self.event_type.encode())} bytes; wanted 1 to {MAX_TYPE_BYTES}.")
        if self.event_time.tzinfo is None:
            raise InvalidRequest(f"event_time {self.event_time.isoformat()} has no zone; wanted e.g. a trailing Z.")
        if not 0 <= self.event_time.timestamp() <= (now + MAX_CLOCK_SKEW).timestamp():
            raise InvalidRequest(
                f"event_time {self.event_time.isoformat()} is before 1970 or ahead of {now.isoformat()}; "
                "wanted a past moment."
            )
        if self.value is not None and not math.isfinite(self.value):
            raise InvalidRequest(f"value is {self.value}; wanted a finite number or none.")
