"""NEWEST: which entities of a kind came last: against the definition, in any order, and what may be dropped."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from infra.contracts.events import Record
from infra.contracts.features import BOARD, Aggregation, Deltas, FeaturePlan, FeatureSpec, Fields, merged

WINDOW_US = 60_000_000
SPEC = FeatureSpec(
    name="newest",
    entity="item",
    aggregation=Aggregation.NEWEST,
    events=frozenset({"item_added"}),
    window=timedelta(microseconds=WINDOW_US),
    k=3,
    unit="item ids",
)
PLAN = FeaturePlan([SPEC])

_records = st.lists(
    st.builds(
        lambda item, what, at_ms: Record("item", item, what, at_ms * 1000, f"{item}{what}{at_ms}", {"item_id": item}),
        st.sampled_from([f"i{number}" for number in range(6)]),
        st.sampled_from(["item_added", "item_added", "click"]),
        st.integers(0, 200_000),
    ),
    max_size=30,
)


def board_of(records: list[Record]) -> dict[str, int]:
    deltas: Deltas = {}
    PLAN.accumulate(records, deltas)
    assert set(deltas) <= {("item", BOARD)}
    return deltas.get(("item", BOARD), {})


def expected(records: list[Record], now_us: int) -> tuple[str, ...]:
    last: dict[str, int] = {}
    for record in records:
        if record.event_type == "item_added":
            last[record.entity_id] = max(last.get(record.entity_id, 0), record.event_time_us // 1000)
    within = [(at, item) for item, at in last.items() if at > (now_us - WINDOW_US) // 1000]
    return tuple(item for _, item in sorted(within, reverse=True)[:3])


@given(_records, st.integers(0, 300_000_000))
def test_it_is_the_newest_of_all_that_came_in_any_order(records: list[Record], now_us: int) -> None:
    state = board_of(records)
    assert SPEC.value(state, now_us) == expected(records, now_us)
    assert board_of(records[::-1]) == state
    half = len(records) // 2
    assert merged(board_of(records[:half]), board_of(records[half:])) == state
    listed = SPEC.board(Fields(state), now_us)
    assert tuple(sorted(listed, key=lambda item: (listed[item], item), reverse=True))[:3] == SPEC.value(state, now_us)


@given(_records, _records, st.integers(0, 300_000_000), st.integers(0, 100_000_000))
def test_what_is_stale_changes_no_value_then_or_later_whatever_comes_late(
    records: list[Record], late: list[Record], now_us: int, later_us: int
) -> None:
    state = board_of(records)
    stale = PLAN.stale("item", state, now_us)
    kept = {field: amount for field, amount in state.items() if field not in stale}
    for moment in (now_us, now_us + later_us):
        assert SPEC.value(merged(kept, board_of(late)), moment) == SPEC.value(merged(state, board_of(late)), moment)


def test_it_is_a_board_and_no_feature_of_one_item() -> None:
    assert PLAN.of("item") == []
    assert PLAN.of("item", boards=True) == [SPEC]
    assert (SPEC.dtype, SPEC.default) == ("list[str]", ())
