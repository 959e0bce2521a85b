"""An event: what it may hold, and how a refusal names the field, what was seen and what was wanted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from infra.contracts.errors import InvalidRequest
from infra.contracts.events import MAX_CLOCK_SKEW, Event
from infra.contracts.ids import ItemId, UserId

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CLICK = Event("e-1", UserId("u1"), ItemId("i1"), "click", NOW - timedelta(minutes=1))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"user_id": "a:b{c}\n\0ü"},
        {"event_time": datetime(1970, 1, 1, tzinfo=UTC)},
        {"event_time": NOW + MAX_CLOCK_SKEW},
        {"event_time": (NOW - timedelta(hours=1)).astimezone(timezone(timedelta(hours=5, minutes=30)))},
        {"event_type": "x" * 64},
        {"value": 0.0},
        {"value": -3.5},
    ],
    ids=str,
)
def test_what_can_happen_is_taken(change: dict[str, object]) -> None:
    replace(CLICK, **change).check(now=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"user_id": ""}, "user_id is empty"),
        ({"item_id": "x" * 257}, "item_id has 257 bytes"),
        ({"event_id": "\ud800"}, "event_id holds a lone surrogate"),
        ({"event_type": ""}, "event_type has 0 bytes; wanted 1 to 64"),
        ({"event_type": "ü" * 33}, "event_type has 66 bytes; wanted 1 to 64"),
        ({"event_time": datetime(2024, 6, 1)}, "has no zone; wanted e.g. a trailing Z"),
        ({"event_time": datetime(1969, 12, 31, tzinfo=UTC)}, "is before 1970 or ahead of"),
        ({"event_time": NOW + MAX_CLOCK_SKEW + timedelta(seconds=1)}, "wanted a past moment"),
        ({"value": float("nan")}, "value is nan; wanted a finite number or none"),
        ({"value": float("inf")}, "value is inf"),
    ],
    ids=str,
)
def test_what_cannot_happen_is_refused_with_the_field_named(change: dict[str, object], seen: str) -> None:
    with pytest.raises(InvalidRequest, match=seen):
        replace(CLICK, **change).check(now=NOW)  # type: ignore[arg-type]
