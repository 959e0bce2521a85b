"""Events and their records: one an entity, each in the shard of its entity, equal for the same event sent again."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts.events import SHARDS, Event, Record, Value, shard_of

NOW = datetime(2026, 5, 1, 12, 0, 0, 123_457, tzinfo=UTC)
PAID = Event("e1", "transaction", NOW, {"card": "c1", "merchant": "m1"}, {"amount_minor": 1999, "country": "DE"})


def test_an_event_is_one_record_an_entity_in_their_order_and_each_says_all() -> None:
    said: dict[str, Value] = {"card_id": "c1", "merchant_id": "m1", "amount_minor": 1999, "country": "DE"}
    time_us = 1_777_636_800_123_457
    assert PAID.records() == [
        Record("card", "c1", "transaction", time_us, "e1", said),
        Record("merchant", "m1", "transaction", time_us, "e1", said),
    ]


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30)),
    st.integers(-23 * 60, 23 * 60),
)
def test_a_record_keeps_the_moment_to_the_microsecond_whatever_its_zone(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=UTC)
    at_home = aware.astimezone(timezone(timedelta(minutes=minutes))) if moment.year > 1970 else aware
    (record,) = Event("e", "click", at_home, {"user": "u"}).records()
    assert record.event_time == aware and record.event_time.tzinfo is UTC


def test_a_record_knows_user_and_item_where_it_concerns_them() -> None:
    of_user, of_item = Event("e", "click", NOW, {"user": "u1", "item": "i1"}).records()
    assert [(one.user_id, one.item_id) for one in (of_user, of_item)] == [("u1", "i1")] * 2
    assert [(one.user_id, one.item_id) for one in PAID.records()] == [("", "")] * 2


def test_records_of_one_event_differ_in_their_duplicate_key_and_the_same_event_again_does_not() -> None:
    card, merchant = PAID.records()
    assert (card.duplicate_key, merchant.duplicate_key) == (
        f"card:{card.entity_id}:e1",
        f"merchant:{merchant.entity_id}:e1",
    )
    assert [one.duplicate_key for one in PAID.records()] == [card.duplicate_key, merchant.duplicate_key]
    other = Event("e2", "transaction", NOW, PAID.entities).records()[0]
    assert other.duplicate_key != card.duplicate_key


@pytest.mark.parametrize(
    ("kind", "entity_id", "shard"),
    [("user", "u1", 8), ("item", "u1", 3), ("user", "", 13), ("card", "4929-0000", 3), ("user", "é\n\0{}", 9)],
)
def test_shards_are_pinned_for_what_was_written_stays_where_it_is(kind: str, entity_id: str, shard: int) -> None:
    assert shard_of(kind, entity_id) == shard
    assert Event("e", "x", NOW, {kind: entity_id}).records()[0].shard == shard


def test_entities_are_spread_evenly_over_the_shards() -> None:
    n = 16_000
    counts = Counter(shard_of("user", f"u{number:07d}") for number in range(n))
    assert set(counts) == set(range(SHARDS))
    assert max(counts.values()) < 1.15 * n / SHARDS
