"""feedback: from a posted body to events in the log."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from bentos.ranking.schema import EventFields, EventsReply, EventsRequest
from infra.contracts.errors import InvalidRequest
from infra.contracts.events import Event
from infra.contracts.ids import ItemId, UserId
from infra.eventlog.protocol import EventLog


class Feedback:
    """Takes events."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def take(self, request: EventsRequest, *, request_id: str, now: datetime) -> EventsReply:
        """Raises InvalidRequest naming the event, DependencyUnavailable; then none was taken."""
        events = []
        many = request.events is not None
        for at, fields in enumerate(_listed(request)):
            event = Event(
                event_id=fields.event_id if fields.event_id is not None else uuid.uuid4().hex,
                user_id=UserId(fields.user_id),
                item_id=ItemId(fields.item_id),
                event_type=fields.event_type,
                event_time=(fields.event_time or now).astimezone(UTC),
                value=fields.value,
            )
            try:
                event.check(now=now)
            except (InvalidRequest, UnicodeEncodeError) as error:
                place = f"events.{at}: " if many else ""
                raise InvalidRequest(f"{place}{error}", mend="Nothing was taken; send all of them again.") from error
            events.append(event)
        appended = await self._log.append(events)
        return EventsReply(
            request_id=request_id,
            accepted=len(appended),
            duplicates=sum(entry.duplicate for entry in appended),
            positions=[entry.position for entry in appended],
        )


def _listed(request: EventsRequest) -> list[EventFields]:
    single = request.model_dump(exclude={"events"}, exclude_none=True)
    if request.events is not None:
        if single:
            raise InvalidRequest(f"The body has both events and {', '.join(single)}; wanted one form or the other.")
        return request.events
    missing = [name for name in ("user_id", "item_id", "event_type") if name not in single]
    if missing:
        raise InvalidRequest(
            f"The event lacks {', '.join(missing)}.",
            mend='Send {"user_id", "item_id", "event_type"} or {"events": [...]}.',
        )
    return [EventFields.model_construct(**{"event_time": None, "event_id": None, "value": None, **single})]


def now_utc() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)
