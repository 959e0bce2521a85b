"""The contract of nearline features: states that commute, values that are what the definition says, cleaning that changes none."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts.errors import ContractViolation
from infra.contracts.events import Record, Value
from infra.contracts.features import BOARD, Aggregation, Deltas, FeaturePlan, FeatureSpec, digest, merged
from infra.contracts.sketches import sketch_place
from tests.fixtures.feature_model import classic_sketch, expected
from tests.fixtures.proof import sized

_MINUTE_US = 60_000_000
_NOW_US = 29_000_000 * _MINUTE_US + 17_000_123
_HOUR = timedelta(hours=1)
_feature = partial(FeatureSpec, entity="user", events=frozenset({"click"}), window=_HOUR, unit="of it")

COUNTED = _feature(name="count", aggregation=Aggregation.COUNT)
SUMMED = _feature(name="sum", aggregation=Aggregation.SUM, of="amount", valid=(-(10**14), 10**14))
IN_SESSION = _feature(
    name="session", aggregation=Aggregation.SESSION, window=timedelta(hours=4), gap=timedelta(minutes=30)
)
TOLD_APART = _feature(name="distinct", aggregation=Aggregation.DISTINCT, of="item_id")
LISTED = _feature(name="last", aggregation=Aggregation.LAST, of="item_id", k=3)
LISTED_SHORT = _feature(name="last_short", aggregation=Aggregation.LAST, of="item_id", k=1, window=timedelta(minutes=5))
RANKED = _feature(name="top", entity="item", aggregation=Aggregation.TOP, k=2, bucket=timedelta(minutes=5))
CAME_LAST = _feature(name="newest", entity="item", aggregation=Aggregation.NEWEST, k=2)
SPECS = (COUNTED, SUMMED, IN_SESSION, TOLD_APART, LISTED, LISTED_SHORT, RANKED, CAME_LAST)
PLAN = FeaturePlan(SPECS)
_OWN = ("user", "u1")

# Near the edges of windows, buckets and gaps, and up to five minutes ahead of the clock, more often than between.
_edges_us = [
    spec.window_us * before + late
    for spec in SPECS
    for before in (0, 1)
    for late in (-_MINUTE_US, -1000, -1, 0, 1, 1000, _MINUTE_US, 30 * _MINUTE_US)
]
_ago_us = st.sampled_from(_edges_us) | st.integers(-5 * _MINUTE_US, 5 * 60 * _MINUTE_US)


def record(kind: str, ago_us: int, item: str, amount: Value | None) -> Record:
    values: dict[str, Value] = {"user_id": "u1", "item_id": item}
    if amount is not None:
        values["amount"] = amount
    return Record(kind, "u1" if kind == "user" else item, "click", _NOW_US - ago_us, "e", values)


_records = st.lists(
    st.builds(
        record,
        st.sampled_from(["user", "user", "item"]),
        _ago_us,
        st.sampled_from([f"i{n}" for n in range(8)]),
        st.none() | st.integers(-(10**12), 10**12),
    ),
    max_size=40,
)
_SIZE = hypothesis_settings(max_examples=sized(200, full=5000), deadline=None)


def states_of(records: Iterable[Record]) -> Deltas:
    deltas: Deltas = {}
    PLAN.accumulate(records, deltas)
    return deltas


def values_at(states: Deltas, now_us: int) -> dict[str, object]:
    boards = {spec.name: spec.value(states.get(("item", BOARD), {}), now_us) for spec in (RANKED, CAME_LAST)}
    return {**PLAN.features("user", states.get(_OWN, {}), now_us), **boards}


def cleaned(states: Deltas, now_us: int) -> Deltas:
    out: Deltas = {}
    for (kind, entity_id), state in states.items():
        gone = set(PLAN.stale(kind, state, now_us))
        out[kind, entity_id] = {field: amount for field, amount in state.items() if field not in gone}
    return out


def added(states: Deltas, more: Deltas) -> Deltas:
    return {own: merged(states.get(own, {}), more.get(own, {})) for own in {**states, **more}}


@_SIZE
@given(records=_records, later_us=st.sampled_from([0, 1, _MINUTE_US, 61 * _MINUTE_US]) | st.integers(0, 2**34))
def test_every_value_is_what_its_definition_says_of_the_raw_records(records: list[Record], later_us: int) -> None:
    states, now_us = states_of(records), _NOW_US + later_us
    assert values_at(states, now_us) == {spec.name: expected(spec, records, now_us) for spec in SPECS}


@_SIZE
@given(records=_records, seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_neither_the_order_of_records_nor_how_they_are_split_matters(
    records: list[Record], seed: int, cuts: list[int]
) -> None:
    shuffled = random.Random(seed).sample(records, len(records))
    parts: Deltas = {}
    starts = sorted({0, *(min(cut, len(records)) for cut in cuts)})
    for start, end in zip(starts, [*starts[1:], len(records)], strict=True):
        parts = added(parts, states_of(shuffled[start:end]))
    assert parts == states_of(records)


@_SIZE
@given(
    before=_records,
    after=_records,
    cleaned_us=st.sampled_from([0, _MINUTE_US]) | st.integers(-10 * _MINUTE_US, 5 * 60 * _MINUTE_US),
    later_us=st.sampled_from([0, 1]) | st.integers(0, 2**34),
)
def test_cleaning_changes_no_value_at_that_moment_or_later_whatever_comes_late(
    before: list[Record], after: list[Record], cleaned_us: int, later_us: int
) -> None:
    full = states_of(before)
    lean = cleaned(full, _NOW_US + cleaned_us)
    now_us = _NOW_US + cleaned_us + later_us
    assert values_at(lean, now_us) == values_at(full, now_us)
    full, lean = added(full, states_of(after)), added(lean, states_of(after))
    assert values_at(lean, now_us) == values_at(full, now_us)
    assert digest(lean, PLAN, now_us) == digest(full, PLAN, now_us)


@pytest.mark.parametrize("spec", SPECS[:5], ids=lambda spec: spec.name)
def test_cleaning_keeps_what_counts_and_nothing_else_to_the_microsecond(spec: FeatureSpec) -> None:
    plan = FeaturePlan([spec])
    first_us = spec.window_us - 2_000 if spec.of and spec.of != "amount" else spec.window_us + 17_000_123 - 2_000
    kept = []
    for ago_us in range(first_us, first_us + 4_000, 100):
        deltas: Deltas = {}
        plan.accumulate([record("user", ago_us, "i1", 7)], deltas)
        kept.append(not plan.stale("user", deltas[_OWN], _NOW_US))
        in_session = (
            spec.aggregation is Aggregation.SESSION
        )  # what lies before the pause may be bridged by what comes late
        assert in_session or kept[-1] == (spec.value(deltas[_OWN], _NOW_US) != spec.default)
    assert set(kept) == {True, False}


@_SIZE
@given(records=_records.filter(bool), extra=_records)
def test_states_with_different_values_have_different_digests(records: list[Record], extra: list[Record]) -> None:
    one, other = states_of(records), states_of([*records, *extra])
    if values_at(one, _NOW_US) != values_at(other, _NOW_US):
        assert digest(one, PLAN, _NOW_US) != digest(other, PLAN, _NOW_US)


def test_an_idle_entity_decays_to_what_one_never_seen_is_worth_and_leaves_nothing_to_keep() -> None:
    states = states_of([record("user", 0, "i1", 7), record("item", 0, "i1", None)])
    later_us = _NOW_US + 5 * 60 * _MINUTE_US
    assert values_at(states, later_us) == {spec.name: spec.default for spec in SPECS}
    assert cleaned(states, later_us) == {_OWN: {}, ("item", BOARD): {}}
    assert digest(states, PLAN, later_us) == digest({}, PLAN, later_us)


def test_a_window_takes_the_whole_of_its_first_bucket_and_nothing_before() -> None:
    first_us = (_NOW_US - COUNTED.window_us) // _MINUTE_US * _MINUTE_US
    at_start, before = record("user", _NOW_US - first_us, "i1", 5), record("user", _NOW_US - first_us + 1, "i2", 9)
    state = states_of([at_start, before])[_OWN]
    assert (COUNTED.value(state, _NOW_US), SUMMED.value(state, _NOW_US)) == (1, 5)


def test_a_session_ends_at_the_pause() -> None:
    minutes_ago = [2, 20, 50, 81, 82]  # 31 minutes lie between the third and the fourth
    state = states_of([record("user", ago * _MINUTE_US, "i1", None) for ago in minutes_ago])[_OWN]
    assert IN_SESSION.value(state, _NOW_US) == 3
    assert IN_SESSION.value(state, _NOW_US + 28 * _MINUTE_US) == 3
    assert IN_SESSION.value(state, _NOW_US + 29 * _MINUTE_US) == 0


def test_of_two_in_one_millisecond_the_last_of_the_alphabet_is_the_newest() -> None:
    state = states_of([record("user", 5_000 - n, item, None) for n, item in enumerate(["i2", "i3", "i1"])])[_OWN]
    assert LISTED.value(state, _NOW_US) == ("i3", "i2", "i1")


def test_what_came_again_ahead_of_the_clock_still_counts_now() -> None:
    state = states_of([record("user", _MINUTE_US, "i1", None), record("user", -_MINUTE_US, "i1", None)])[_OWN]
    assert (TOLD_APART.value(state, _NOW_US), LISTED.value(state, _NOW_US)) == (1, ("i1",))


@pytest.mark.parametrize(("n", "worst"), [(1, 0), (5, 1), (10, 2), (30, 5), (100, 15)])
def test_small_distinct_counts_are_nearly_exact(n: int, worst: int) -> None:
    """Two hundred sets of each size; the error of linear counting (Whang 1990), m = 256: sqrt(m (e^t - t - 1)), t = n / m."""
    errors = [distinct([f"{trial}-{value}" for value in range(n)]) - n for trial in range(200)]
    t = n / 256
    assert math.sqrt(sum(error**2 for error in errors) / 200) <= 1.2 * math.sqrt(256 * (math.exp(t) - t - 1)) + 0.3
    assert max(abs(error) for error in errors) <= worst


@pytest.mark.parametrize("n", [700, 3000, 20_000])
def test_large_distinct_counts_are_within_the_error_that_the_sketch_promises(n: int) -> None:
    errors = [distinct([f"{trial}-{value}" for value in range(n)]) / n - 1 for trial in range(40)]
    assert math.sqrt(sum(error**2 for error in errors) / 40) <= 1.3 * 1.04 / math.sqrt(256)


def distinct(values: Sequence[str]) -> int:
    code = TOLD_APART.code
    found = TOLD_APART.value({f"^{code}:{sketch_place(value)}": _NOW_US // 1000 for value in values}, _NOW_US)
    assert found == round(classic_sketch(values))
    return int(found)


def test_values_outside_of_what_is_valid_are_taken_for_the_nearer_end() -> None:
    many, some = (_feature(name=f"to_{most}", aggregation=Aggregation.COUNT, valid=(1, most)) for most in (9, 2))
    state = states_of([record("user", 0, "i1", None)] * 5)[_OWN]
    assert (many.value(state, _NOW_US), some.value(state, _NOW_US), some.value({}, _NOW_US), some.default) == (
        5,
        2,
        1,
        1,
    )


@pytest.mark.parametrize("said", ["7", 7.0, None])
def test_what_is_no_whole_number_adds_nothing_to_a_sum_and_the_record_counts_otherwise(said: Value | None) -> None:
    state = states_of([record("user", 0, "i1", said), record("user", 0, "i1", 5)])[_OWN]
    assert (SUMMED.value(state, _NOW_US), COUNTED.value(state, _NOW_US)) == (5, 2)


def test_features_that_read_the_same_state_share_it() -> None:
    state = states_of([record("user", 0, "i1", None)])[_OWN]
    assert sorted(field[1:7] for field in state) == sorted({COUNTED.code, TOLD_APART.code, LISTED.code})
    assert (COUNTED.code, LISTED.code) == (IN_SESSION.code, LISTED_SHORT.code)


@pytest.mark.parametrize(
    "other",
    [
        _feature(name="count", aggregation=Aggregation.COUNT, entity="item"),
        _feature(name="count", aggregation=Aggregation.COUNT, events=frozenset({"click", "view"})),
        _feature(name="count", aggregation=Aggregation.COUNT, bucket=timedelta(minutes=5)),
        _feature(name="count", aggregation=Aggregation.SUM, of="amount"),
        _feature(name="count", aggregation=Aggregation.DISTINCT, of="amount"),
        _feature(name="count", aggregation=Aggregation.TOP, k=1),
    ],
    ids=["entity", "events", "bucket", "sum", "distinct", "top"],
)
def test_a_feature_that_counts_something_else_has_a_code_of_its_own(other: FeatureSpec) -> None:
    assert other.code != COUNTED.code


def test_what_only_looks_back_further_or_is_called_otherwise_keeps_its_state() -> None:
    other = _feature(name="clicks", aggregation=Aggregation.COUNT, window=2 * _HOUR, unit="clicks", valid=(0, 9))
    assert other.code == COUNTED.code


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"events": frozenset[str]()}, "events is empty"),
        ({"window": timedelta(seconds=59)}, "window is shorter than bucket"),
        ({"bucket": timedelta(0)}, "window is shorter than bucket"),
        ({"of": "amount"}, "of is wanted"),
        ({"aggregation": Aggregation.SUM}, "of is wanted"),
        ({"k": 3}, "k is wanted"),
        ({"aggregation": Aggregation.TOP}, "k is wanted"),
        ({"gap": _HOUR}, "gap is wanted"),
        ({"aggregation": Aggregation.SESSION}, "gap is wanted"),
        ({"aggregation": Aggregation.SESSION, "gap": timedelta(seconds=59)}, "gap is shorter than bucket"),
        ({"valid": (2, 1)}, "valid is empty"),
    ],
)
def test_a_feature_that_cannot_be_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ContractViolation, match=says):
        _feature(**{"name": "clicks", "aggregation": Aggregation.COUNT, **wrong})  # type: ignore[arg-type]


def test_two_features_of_one_name_are_refused() -> None:
    with pytest.raises(ContractViolation, match=r"Two features are called user\.count"):
        FeaturePlan([COUNTED, _feature(name="count", aggregation=Aggregation.TOP, k=1)])


def test_a_code_that_two_unlike_features_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(SUMMED), "code", COUNTED.code)
    with pytest.raises(ContractViolation, match="has the code of another"):
        FeaturePlan([COUNTED, SUMMED])
