"""Records as bytes: they come back as they were, in one form, and what is no record is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.catalog.features.nearline import plan_of
from infra.contracts.events import Record
from infra.contracts.features import Deltas
from infra.eventlog.records import FOREIGN, decode, encode
from tests.fixtures.proof import sized
from tests.unit.infra.eventlog.scenes import record

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_VALUES = _TEXT | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.builds(Record, _TEXT, _TEXT, _TEXT, st.integers(0, 2**62), _TEXT, st.dictionaries(_TEXT, _VALUES))))
@hypothesis_settings(max_examples=sized(100, full=3000), deadline=None)
def test_any_records_come_back_as_they_were_and_numbers_keep_their_kind(sent: list[Record]) -> None:
    back = decode([encode(one) for one in sent])
    assert back == sent
    assert [[type(value) for value in one.values.values()] for one in back] == [
        [type(value) for value in one.values.values()] for one in sent
    ]


def test_a_record_is_a_json_array_that_anybody_can_read() -> None:
    one = Record("card", "c:{}\n\x00é", "transaction", 5, "e1", {"card_id": "c", "amount_minor": 10**14, "share": 0.5})
    assert json.loads(encode(one)) == list(one)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"junk",
        b"{}",
        b"[]",
        b"null",
        b'["user","u1","click",5,"e1"]',
        b'["user","u1","click",5,"e1",{},1]',
        b'["user","u1","click","5","e1",{}]',
        b'["user","u1","click",5.5,"e1",{}]',
        b'["user",null,"click",5,"e1",{}]',
        b'["user","u1","click",5,"e1",{"value":null}]',
        b'["user","u1","click",5,"e1",{"value":[1]}]',
        b'["user","\xff","click",5,"e1",{}]',
        encode(record(1))[:-1],
        encode(record(1)) + b"," + encode(record(2)),
    ],
)
def test_what_is_no_record_counts_for_nothing_is_told_and_stops_no_other(
    junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert decode([junk]) == [FOREIGN]
    assert decode([encode(record(1)), junk, encode(record(2))]) == [record(1), FOREIGN, record(2)]
    assert "what headgate did not write" in caplog.text
    deltas: Deltas = {}
    plan_of("ranking").accumulate(decode([junk]), deltas)
    assert deltas == {}


def test_two_halves_of_a_record_are_not_one() -> None:
    text = encode(record(1))
    assert decode([text[:20], text[20:]]) == [FOREIGN, FOREIGN]
