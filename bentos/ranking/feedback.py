"""feedback: from a posted body to records in the log; what is wrong is refused event by event, and kept among the dead letters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bentos.ranking.schema import MAX_EVENTS, EventsReply, RefusedEvent
from infra.catalog.events.spec import EventSchema
from infra.contracts.errors import DependencyUnavailable, InvalidRequest
from infra.contracts.events import Event, Record
from infra.eventlog.dead_letters import DeadLetter, DeadLetters
from infra.eventlog.protocol import Appended, EventLog
from infra.nearline.pending import PendingRecords
from infra.resilience.complaints import Complaints

_log = logging.getLogger("headgate.feedback")


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a body, and what was lost beside it: notes of pending records, dead letters."""

    reply: EventsReply
    not_noted: int


class Feedback:
    """Takes events."""

    def __init__(
        self, log: EventLog, schema: EventSchema, *, pending: PendingRecords, dead_letters: DeadLetters
    ) -> None:
        self._events = log
        self._schema = schema
        self._pending = pending
        self._dead_letters = dead_letters
        self._complaints = Complaints(_log)

    async def take(self, body: Mapping[str, object], *, request_id: str, now: datetime) -> Taken:
        """Take what can be: `{"events": [...]}`, or one event by itself.

        Raises InvalidRequest where the one event, or the form of the body, is wrong; DependencyUnavailable where the log cannot
        say that it has all: then send all again, with the same event ids.
        """
        many = "events" in body
        said = _listed(body)
        events: list[tuple[int, Event]] = []
        refused: list[RefusedEvent] = []
        for index, one in enumerate(said):
            try:
                events.append((index, self._schema.parse(one, now=now)))
            except InvalidRequest as error:
                refused.append(RefusedEvent(index=index, reason=str(error)))
        if refused and not many:
            await self._bury([DeadLetter.of(said[0], refused[0].reason, at=now)])
            raise InvalidRequest(refused[0].reason)
        records = [record for _, event in events for record in event.records()]
        appended = await self._events.append(records)
        not_noted = await self._note(records, appended)
        if refused:  # only now: a batch that the log did not take comes again
            await self._bury([DeadLetter.of(said[one.index], one.reason, at=now) for one in refused])
        firsts: list[Appended] = []
        at = 0
        for _, event in events:
            firsts.append(appended[at])
            at += len(event.entities)
        reply = EventsReply(
            request_id=request_id,
            accepted=len(events),
            duplicates=sum(place.duplicate for place in firsts),
            refused=refused,
            positions=[f"{place.shard}:{place.offset}" for place in firsts],
        )
        return Taken(reply, not_noted)

    async def bury(self, body: bytes, reason: str, *, now: datetime) -> None:
        """Keep a body that is no JSON, or no object."""
        await self._bury([DeadLetter(at=now, reason=reason, payload=body)])

    async def _note(self, records: Sequence[Record], appended: Sequence[Appended]) -> int:
        """Records that the log has and the next request may not see at once: none, or all of them."""
        try:
            await self._pending.note(records, appended)
        except DependencyUnavailable as error:
            self._complaints.note("pending", f"{len(records)} record(s) are seen only once they are counted: {error}")
            return len(records)
        return 0

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        try:
            await self._dead_letters.add(letters)
        except DependencyUnavailable as error:
            self._complaints.note("dead letters", f"{len(letters)} dead letter(s) are lost: {error}")


def _listed(body: Mapping[str, object]) -> Sequence[object]:
    if "events" not in body:
        return [body]
    others = sorted(str(name)[:40] for name in body if name != "events")
    if others:
        raise InvalidRequest(f"The body has both events and {', '.join(others[:5])}; wanted one form or the other.")
    events = body["events"]
    if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
        seen = f"{len(events)} of them" if isinstance(events, list) else type(events).__name__
        raise InvalidRequest(f"events is {seen}; wanted a list of 1 to {MAX_EVENTS}.")
    return events


def now_utc() -> datetime:
    """The clock of the service."""
    return datetime.now(UTC)
