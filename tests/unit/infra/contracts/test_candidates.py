"""The packed user record and the score map: round trips, size, order, refusal of rubbish."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infra.contracts.candidates import MAX_HISTORY, MAX_USER_FEATURES, ScoreMap, UserRecord, is_ordered, pack, unpack
from infra.contracts.errors import ContractViolation


@st.composite
def records(draw: st.DrawFn) -> UserRecord:
    n = draw(st.integers(0, 1200))
    return UserRecord(
        draw(hnp.arrays(np.int32, n)),
        draw(hnp.arrays(np.float16, n)),
        draw(hnp.arrays(np.float16, st.integers(0, MAX_USER_FEATURES))),
        draw(hnp.arrays(np.int32, st.integers(0, MAX_HISTORY))),
    )


@given(records())
def test_a_record_comes_back_bit_for_bit(record: UserRecord) -> None:
    found = unpack(pack(record))
    for name in ("item_indices", "scores", "features", "history"):
        assert getattr(found, name).tobytes() == getattr(record, name).tobytes(), name


def test_a_full_record_of_1000_candidates_fits_redis_allocation_class_of_6144_bytes() -> None:
    record = UserRecord(
        np.zeros(1000, np.int32),
        np.zeros(1000, np.float16),
        np.zeros(MAX_USER_FEATURES, np.float16),
        np.zeros(MAX_HISTORY, np.int32),
    )
    redis_string_header_bytes = 6
    assert len(pack(record)) + redis_string_header_bytes <= 6144


@given(st.binary(max_size=64))
def test_rubbish_is_refused_and_never_read_as_a_record(payload: bytes) -> None:
    try:
        found = unpack(payload)
    except ContractViolation:
        return
    assert pack(found) == payload


def test_a_cut_record_is_refused() -> None:
    payload = pack(
        UserRecord(np.arange(5, dtype=np.int32), np.ones(5, np.float16), np.ones(2, np.float16), np.ones(1, np.int32))
    )
    for length in range(len(payload)):
        with pytest.raises(ContractViolation):
            unpack(payload[:length])


finite = st.floats(-50, 50, width=32)


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=finite), st.floats(0.01, 10))
def test_stored_lists_are_ordered_and_never_negative(products: np.ndarray, scale: float) -> None:
    rng = np.random.default_rng(0)
    items = rng.permutation(len(products)).astype(np.int32)
    indices, scores = ScoreMap(scale).ordered(items, products)
    assert is_ordered(indices, scores)
    assert (scores >= 0).all()
    assert sorted(indices) == sorted(items)


@given(finite, finite)
def test_the_score_map_never_reverses_two_products(a: float, b: float) -> None:
    low, high = sorted((a, b))
    stored = ScoreMap(1.5).stored(np.array([low, high], np.float32))
    assert stored[0] <= stored[1]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_score_map_refuses_a_scale_that_is_no_scale(scale: float) -> None:
    with pytest.raises(ContractViolation):
        ScoreMap(scale)


@pytest.mark.parametrize(
    ("indices", "scores", "ordered"),
    [
        ([], [], True),
        ([4], [1.0], True),
        ([4, 2], [2.0, 1.0], True),
        ([2, 4], [1.0, 1.0], True),
        ([4, 2], [1.0, 1.0], False),
        ([2, 4], [1.0, 2.0], False),
        ([2, 2], [1.0, 1.0], False),
        ([2, 4], [float("nan"), 1.0], False),
    ],
)
def test_order_means_falling_scores_and_ties_by_the_lower_index(
    indices: list[int], scores: list[float], ordered: bool
) -> None:
    assert is_ordered(np.array(indices, np.int32), np.array(scores, np.float16)) is ordered
