"""STANDING: what was said last of each entity, however long ago: against the definition, in any order, and what may be dropped."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts.errors import ContractViolation
from infra.contracts.events import Record
from infra.contracts.features import BOARD, Aggregation, Deltas, FeaturePlan, FeatureSpec, Fields, merged

WINDOW_US = 60_000_000
SPEC = FeatureSpec(
    name="gone",
    entity="item",
    aggregation=Aggregation.STANDING,
    events=frozenset({"item_changed"}),
    of="available",
    usual="1",
    window=timedelta(microseconds=WINDOW_US),
    unit="0",
)
PLAN = FeaturePlan([SPEC])
YEARS_US = 10 * 365 * 86_400 * 1_000_000

_ids = st.sampled_from(["i1", "i", "1", "i:1", "2:i1", "", "ü:", "\0"]).filter(bool)
_values = st.sampled_from([0, 1, None, "7:", "1:1"])


def said(item: str, value: object, at_us: int, what: str = "item_changed") -> Record:
    values = {"item_id": item} | ({} if value is None else {"available": value})
    return Record("item", item, what, at_us, f"{item}{at_us}", values)  # type: ignore[arg-type]


_records = st.lists(
    st.builds(said, _ids, _values, st.integers(0, 200_000_000), st.sampled_from(["item_changed", "item_added"])),
    max_size=30,
)


def board_of(records: list[Record]) -> dict[str, int]:
    deltas: Deltas = {}
    PLAN.accumulate(records, deltas)
    assert set(deltas) <= {("item", BOARD)}
    return deltas.get(("item", BOARD), {})


def expected(records: list[Record]) -> dict[str, str]:
    last: dict[str, tuple[int, str]] = {}
    for record in records:
        if record.event_type == "item_changed" and "available" in record.values:
            told = (record.event_time_us, str(record.values["available"]))
            last[record.entity_id] = max(last.get(record.entity_id, told), told)
    return {item: value for item, (_, value) in last.items() if value != "1"}


@given(_records)
def test_it_is_what_was_said_last_whatever_the_order(records: list[Record]) -> None:
    state = board_of(records)
    assert SPEC.standing(Fields(state)) == expected(records)
    assert board_of(records[::-1]) == board_of(records + records) == state
    half = len(records) // 2
    assert merged(board_of(records[:half]), board_of(records[half:])) == state
    assert SPEC.value(state, YEARS_US) == tuple(sorted(expected(records)))


@given(_records, _records, st.integers(0, 300_000_000))
def test_what_is_stale_changes_no_value_whatever_comes_no_later_than_the_window(
    records: list[Record], late: list[Record], now_us: int
) -> None:
    state = board_of(records)
    stale = PLAN.stale("item", state, now_us)
    kept = {field: amount for field, amount in state.items() if field not in stale}
    late = [record for record in late if record.event_time_us > now_us - WINDOW_US]
    for more in ([], late):
        after = [SPEC.standing(Fields(merged(part, board_of(more)))) for part in (kept, state)]
        assert after[0] == after[1] == expected(records + more)


def test_what_is_unusual_stands_for_years_and_what_is_usual_is_forgotten_after_the_window() -> None:
    state = board_of([said("i1", 0, 5), said("i2", 0, 5), said("i2", 1, 6)])
    assert PLAN.stale("item", state, YEARS_US) == sorted(board_of([said("i2", 0, 5), said("i2", 1, 6)]))
    assert SPEC.value(state, YEARS_US) == ("i1",)
    assert PLAN.stale("item", state, WINDOW_US + 5) == sorted(board_of([said("i2", 0, 5)])), "the 1 is 1 us too young"
    assert len(PLAN.stale("item", state, WINDOW_US + 6)) == 2


def test_a_plan_tells_whose_boards_keep_such_things() -> None:
    assert PLAN.keeps("item") and not PLAN.keeps("user")
    assert PLAN.of("item") == [] and PLAN.of("item", boards=True) == [SPEC]
    assert (SPEC.dtype, SPEC.default) == ("list[str]", ())


def test_only_what_stands_has_a_usual_value() -> None:
    with pytest.raises(ContractViolation, match="usual is of standing alone"):
        FeatureSpec(
            name="x",
            entity="item",
            aggregation=Aggregation.COUNT,
            events=frozenset({"click"}),
            usual="1",
            window=timedelta(hours=1),
            unit="x",
        )
