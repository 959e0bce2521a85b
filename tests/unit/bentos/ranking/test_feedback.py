"""From a posted body to events: single and several, all or none, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from bentos.ranking.feedback import Feedback
from bentos.ranking.schema import EventFields, EventsReply, EventsRequest
from infra.contracts.errors import InvalidRequest
from infra.contracts.events import Event
from infra.eventlog.protocol import Appended, Logged

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CLICK = {"user_id": "u1", "item_id": "i1", "event_type": "click"}


class Notebook:
    """An EventLog that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        self.events += events
        return [Appended(f"{at}-0", duplicate=False) for at in range(len(events))]

    async def read(self, *, after: str, count: int) -> list[Logged]:
        return []


async def take(log: Notebook, body: Mapping[str, object]) -> EventsReply:
    return await Feedback(log).take(EventsRequest.model_validate(body), request_id="r", now=NOW)


async def test_one_event_needs_neither_id_nor_time() -> None:
    log = Notebook()
    reply = await take(log, CLICK)
    (event,) = log.events
    assert (event.user_id, event.item_id, event.event_type, event.event_time) == ("u1", "i1", "click", NOW)
    assert len(event.event_id) == 32
    assert (reply.accepted, reply.duplicates, reply.positions) == (1, 0, ["0-0"])


async def test_several_events_keep_their_order_ids_times_and_values() -> None:
    log = Notebook()
    first = CLICK | {"event_id": "e1", "event_time": "2024-06-01T13:00:00+02:00", "value": 4.5, "event_type": "rating"}
    await take(log, {"events": [first, CLICK | {"user_id": "a:{}\n\x00"}]})
    assert log.events[0].event_id == "e1"
    assert log.events[0].event_time == datetime(2024, 6, 1, 11, tzinfo=UTC)
    assert log.events[0].value == 4.5
    assert log.events[1].user_id == "a:{}\n\x00"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"user_id": ""}, "user_id is empty"),
        ({"item_id": "x" * 257}, "item_id has 257 bytes"),
        ({"event_type": ""}, "event_type has 0 bytes"),
        ({"event_type": "t" * 65}, "event_type has 65 bytes"),
        ({"event_id": ""}, "event_id is empty"),
        ({"event_time": NOW + timedelta(minutes=6)}, "ahead of"),
        ({"event_time": datetime(1969, 1, 1, tzinfo=UTC)}, "before 1970"),
        ({"user_id": "\ud800"}, "lone surrogate"),
    ],
)
async def test_one_bad_event_of_several_is_named_and_none_is_taken(fields: dict[str, object], told: str) -> None:
    log = Notebook()
    with pytest.raises(InvalidRequest, match=f"events.1: .*{told}") as refused:
        good = EventFields.model_validate(CLICK)
        body = EventsRequest.model_construct(
            events=[good, good.model_copy(update=fields)]
        )  # as if the parse let it through
        await Feedback(log).take(body, request_id="r", now=NOW)
    assert log.events == []
    assert "Nothing was taken" in refused.value.mend


async def test_a_body_without_an_event_or_with_both_forms_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="lacks user_id, item_id, event_type"):
        await take(Notebook(), {})
    with pytest.raises(InvalidRequest, match="lacks item_id"):
        await take(Notebook(), {"user_id": "u", "event_type": "click"})
    with pytest.raises(InvalidRequest, match="both events and user_id"):
        await take(Notebook(), {"user_id": "u", "events": [CLICK]})


@pytest.mark.parametrize(
    "body",
    [
        {"events": []},
        {"events": [CLICK] * 501},
        CLICK | {"event_time": "2024-06-01T13:00:00"},
        CLICK | {"value": float("nan")},
        CLICK | {"value": "4"},
        CLICK | {"colour": "red"},
        CLICK | {"user_id": 7},
    ],
)
def test_the_form_of_a_body_is_checked_before_anything_is_taken(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EventsRequest.model_validate(body)
