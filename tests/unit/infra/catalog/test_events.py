"""What events may say: each application's takes what it declares, and names the field of whatever else it is sent."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.catalog.events import SCHEMAS, schema_of
from infra.catalog.events.spec import EventSchema
from infra.contracts.errors import InvalidRequest, UnknownApplication
from infra.contracts.events import MAX_CLOCK_SKEW, MAX_TYPE_BYTES, Event
from infra.eventlog.records import decode, encode
from tests.fixtures.proof import sized

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
RANKING, FRAUD, DISPATCH = (schema_of(name) for name in ("ranking", "fraud", "dispatch"))
CLICK: dict[str, object] = {"event_type": "click", "user_id": "u1", "item_id": "i1"}
PAID: dict[str, object] = {
    "event_type": "transaction",
    "card_id": "c1",
    "merchant_id": "m1",
    "amount_minor": 1999,
    "currency": "EUR",
}
A_SEARCH: dict[str, object] = {"event_type": "search", "user_id": "u1", "query": "red shoes"}


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


def test_an_application_s_events_are_found_by_its_name_and_an_unknown_one_names_those_there_are() -> None:
    with pytest.raises(
        UnknownApplication, match=r"No events are declared for 'feed'; there are: dispatch, fraud, rank"
    ):
        schema_of("feed")


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_filed_under_its_name_and_what_it_declares_fits_together(name: str) -> None:
    schema = schema_of(name)
    assert schema.application == name and schema.types and schema.horizon > MAX_CLOCK_SKEW
    kinds = {kind for spec in schema.types.values() for kind in (*spec.entities, *spec.optional)}
    assert schema.fresh and schema.fresh <= kinds
    for event_type, spec in schema.types.items():
        names = [f"{kind}_id" for kind in (*spec.entities, *spec.optional)] + list(spec.fields)
        assert spec.entities and 0 < len(event_type.encode()) <= MAX_TYPE_BYTES
        assert len(set(names)) == len(names) and not {"event_id", "event_type", "event_time"} & set(names)
        for field in spec.fields.values():
            assert -(2**53) < field.low <= field.high < 2**53, "a float64 holds every whole number between"


def test_what_is_said_is_the_event() -> None:
    said = PAID | {"event_id": "e-1", "event_time": "2026-05-01T13:30:00+02:00", "device_id": "d", "country": "DE"}
    event = FRAUD.parse(said, now=NOW)
    assert event == Event(
        event_id="e-1",
        event_type="transaction",
        event_time=datetime(2026, 5, 1, 11, 30, tzinfo=UTC),
        entities={"card": "c1", "merchant": "m1", "device": "d"},
        values={"amount_minor": 1999, "currency": "EUR", "country": "DE"},
    )
    assert [record.kind for record in event.records()] == ["card", "merchant", "device"]


def test_an_event_without_an_id_gets_one_of_its_own_and_without_a_time_happened_now() -> None:
    for nothing in ({}, {"event_id": None, "event_time": None}):
        one, other = (RANKING.parse(CLICK | nothing, now=NOW) for _ in range(2))
        assert one.event_time == NOW and one.event_id and one.event_id != other.event_id


@pytest.mark.parametrize("nothing", [{}, {"device_id": None, "country": None}])
def test_what_may_be_left_out_may_be_null(nothing: dict[str, object]) -> None:
    event = FRAUD.parse(PAID | nothing, now=NOW)
    assert "device" not in event.entities and "country" not in event.values


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-01T12:00:00Z", NOW),
        ("2026-05-01 12:00:00+00:00", NOW),
        ("2026-05-01T17:30:00+05:30", NOW),
        ("2026-05-01T11:59:59.123456Z", NOW - timedelta(microseconds=876_544)),
        ("2026-05-01T11:59:59.123456789Z", NOW - timedelta(microseconds=876_544)),
        ((NOW + MAX_CLOCK_SKEW).isoformat(), NOW + MAX_CLOCK_SKEW),
        ((NOW - RANKING.horizon).isoformat(), NOW - RANKING.horizon),
    ],
)
def test_a_time_is_a_moment_with_a_zone_neither_ahead_nor_longer_ago_than_features_look(
    text: str, moment: datetime
) -> None:
    event = RANKING.parse(CLICK | {"event_time": text}, now=NOW)
    assert event.event_time == moment and event.event_time.tzinfo is UTC


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (
            (NOW + MAX_CLOCK_SKEW + timedelta(microseconds=1)).isoformat(),
            "is ahead of 2026-05-01T12:00:00+00:00 by more",
        ),
        (
            (NOW - RANKING.horizon - timedelta(microseconds=1)).isoformat(),
            "is longer ago than 7 days; import old events",
        ),
        ("2026-05-01T12:00:00", "event_time is '2026-05-01T12:00:00'; wanted a moment with a zone"),
        ("2026-05-01", "wanted a moment with a zone"),
        ("0001-01-01T00:00:00+23:59", "wanted a moment with a zone"),
        ("9999-12-31T23:59:59-23:59", "wanted a moment with a zone"),
        ("2026-02-30T12:00:00Z", "wanted a moment with a zone"),
        ("yesterday", "wanted a moment with a zone"),
        ("", "wanted a moment with a zone"),
        ("\ud800", "wanted a moment with a zone"),
        (1_777_636_800, "event_time is 1777636800; wanted a moment"),
        (True, "event_time is True; wanted a moment"),
        ({"at": 1}, "wanted a moment with a zone"),
    ],
)
def test_a_time_that_is_none_is_refused(said: object, seen: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(seen)):
        RANKING.parse(CLICK | {"event_time": said}, now=NOW)


@pytest.mark.parametrize("said", [None, [], "click", 5, True, [CLICK], nested(5)])
def test_what_is_no_object_is_no_event(said: object) -> None:
    with pytest.raises(InvalidRequest, match="An event is a JSON object; this is "):
        RANKING.parse(said, now=NOW)


@pytest.mark.parametrize("event_type", ["buy", "", "CLICK", "\ud800", None, 5, ["click"], {"a": 1}, nested(5000)])
def test_a_type_that_is_not_declared_is_refused_and_those_that_are_are_named(event_type: object) -> None:
    wanted = ", ".join(sorted(RANKING.types))
    with pytest.raises(InvalidRequest, match=rf"^event_type is .*; wanted one of {wanted}\."):
        RANKING.parse(CLICK | {"event_type": event_type}, now=NOW)
    with pytest.raises(InvalidRequest, match="event_type is None; wanted one of"):
        RANKING.parse({}, now=NOW)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"user_id": None}, "user_id is missing."),
        ({"user_id": 5}, "user_id is 5; wanted text."),
        ({"user_id": ["u1"]}, "user_id is ['u1']; wanted text."),
        ({"user_id": ""}, "user_id is empty"),
        ({"user_id": "x" * 257}, "user_id has 257 bytes; wanted 1 to 256."),
        ({"item_id": "ü" * 129}, "item_id has 258 bytes"),
        ({"item_id": "\ud800"}, "item_id holds a lone surrogate"),
        ({"event_id": ""}, "event_id is empty"),
        ({"event_id": 7}, "event_id is 7; wanted text."),
        ({"event_id": "\udfff"}, "event_id holds a lone surrogate"),
        ({"value": "5"}, "value is '5'; wanted a number."),
        ({"value": True}, "value is True; wanted a number."),
        ({"value": [1]}, "value is [1]; wanted a number."),
        ({"value": float("nan")}, "value is nan; wanted a number from -1e+15 to 1e+15."),
        ({"value": float("-inf")}, "value is -inf; wanted a number from -1e+15 to 1e+15."),
        ({"value": 1.1e15}, "value is 1100000000000000.0; wanted a number from"),
        ({"value": 10**400}, "value is a huge number; wanted a number from"),
        ({"value": 10**5000}, "value is a huge number; wanted a number from"),
        ({"value": {"n": [10**5000]}}, "value is {'n': [a huge number]}; wanted a number."),
        (
            {"price": 1},
            "price: no field of a click; wanted of event_id, event_time, event_type, item_id, user_id, value.",
        ),
        ({"\ud800": 1}, "\\ud800: no field of a click"),
        ({"card_id": "c1"}, "card_id: no field of a click"),
        (dict.fromkeys("gfedcba", 1), "a, b, c, d, e: no field of a click"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_was_seen_and_what_was_wanted(
    change: dict[str, object], seen: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(seen)) as raised:
        RANKING.parse(CLICK | change, now=NOW)
    assert len(str(raised.value).encode()) < 700


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (PAID | {"amount_minor": -1}, "amount_minor is -1; wanted a whole number from 0 to 1e+12."),
        (PAID | {"amount_minor": 10**12 + 1}, "amount_minor is 1000000000001; wanted a whole number from 0 to 1e+12."),
        (PAID | {"amount_minor": 19.99}, "amount_minor is 19.99; wanted a whole number."),
        (PAID | {"amount_minor": 5.0}, "amount_minor is 5.0; wanted a whole number."),
        (PAID | {"amount_minor": False}, "amount_minor is False; wanted a whole number."),
        (PAID | {"amount_minor": None}, "amount_minor is missing; a transaction has one."),
        (PAID | {"currency": "EURO"}, "currency has 4 bytes; wanted at most 3."),
        (PAID | {"currency": ""}, "currency is ''; wanted text."),
        (PAID | {"currency": "\ud800"}, "currency holds a lone surrogate"),
        (PAID | {"currency": 978}, "currency is 978; wanted text."),
        (PAID | {"device_id": 5}, "device_id is 5; wanted text."),
        (PAID | {"event_type": "chargeback", "device_id": "d"}, "device_id: no field of a chargeback"),
        (PAID | {"merchant_id": None}, "merchant_id is missing."),
    ],
)
def test_money_and_other_fields_are_what_is_declared(said: dict[str, object], seen: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(seen)):
        FRAUD.parse(said, now=NOW)


def test_limits_themselves_are_allowed_and_a_float_field_takes_whole_numbers_as_floats() -> None:
    for amount in (0, 10**12):
        assert FRAUD.parse(PAID | {"amount_minor": amount}, now=NOW).values["amount_minor"] == amount
    value = RANKING.parse(CLICK | {"value": -(10**15)}, now=NOW).values["value"]
    assert value == -1e15 and isinstance(value, float)
    assert RANKING.parse(A_SEARCH | {"query": "ü" * 100}, now=NOW).entities == {"user": "u1"}
    with pytest.raises(InvalidRequest, match=r"value is -0\.5; wanted a number from 0 to"):
        RANKING.parse(CLICK | {"event_type": "purchase", "value": -0.5}, now=NOW)


_KEEPS_ALL = st.text(max_size=12) | st.sampled_from(["", "\ud800", "\0", "2026-05-01T12:00:00Z", "x" * 300])
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**64), 10**400])
    | st.floats()
    | _KEEPS_ALL
    | st.text(st.characters(categories=["Cs", "Lu", "Nd"]), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEEPS_ALL, inner, max_size=3),
    max_leaves=8,
)
_LIKELY: dict[str, st.SearchStrategy[object]] = {
    "event_time": st.sampled_from(["2026-05-01T11:00:00Z", "2026-04-30T23:00:00.5-03:00", None]),
    "id": st.sampled_from(["u1", "a}{:\n\0é"]),
    "int": st.sampled_from([0, 1999]),
    "float": st.sampled_from([5, 0.5]),
    "text": st.sampled_from(["DE", "E"]),
}


@st.composite
def _said(draw: st.DrawFn) -> tuple[EventSchema, object]:
    """Mostly objects that are nearly events: the declared names, some left out, some with values that are likely to be right."""
    schema = draw(st.sampled_from(list(SCHEMAS.values())))
    if draw(st.integers(0, 9)) == 0:
        return schema, draw(_JSON)
    event_type = draw(st.sampled_from(list(schema.types)))
    spec = schema.types[event_type]
    likely = {f"{kind}_id": "id" for kind in (*spec.entities, *spec.optional)} | {
        "event_id": "id",
        "event_time": "event_time",
    }
    likely |= {name: field.dtype for name, field in spec.fields.items()}
    said: dict[str, object] = {"event_type": event_type}
    for name, dtype in likely.items():
        how = draw(st.integers(0, 9))
        if how:
            said[name] = draw(_JSON if how == 1 else _LIKELY[dtype])
    if draw(st.integers(0, 19)) == 0:
        said[draw(_KEEPS_ALL)] = draw(_JSON)
    return schema, said


@given(_said())
@hypothesis_settings(max_examples=sized(500, full=20_000), deadline=None)
def test_whatever_comes_is_an_event_that_the_log_can_keep_or_is_refused_in_words_that_can_be_sent(
    drawn: tuple[EventSchema, object],
) -> None:
    schema, said = drawn
    try:
        event = schema.parse(said, now=NOW)
    except InvalidRequest as refused:
        assert len(str(refused).encode()) < 1500
        return
    records = event.records()
    assert decode([encode(record) for record in records]) == records and records
    assert {record.kind for record in records} >= set(schema.types[event.event_type].entities)
    assert NOW - schema.horizon <= event.event_time <= NOW + MAX_CLOCK_SKEW
    json.dumps(records, allow_nan=False).encode()
