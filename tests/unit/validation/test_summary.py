"""The summary's counts equal those of a plain loop over users, whatever the lists hold; so do exact recall and the overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts.candidates import MAX_HISTORY, Int32s
from infra.contracts.metrics import population_stability_index
from infra.snapshots.tables import CANDIDATES_SCHEMA
from tests.fixtures.proof import sized
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, tiny_world
from tests.unit.validation.workbench import Workbench
from validation import lists as lists_module
from validation.comparison import jaccard
from validation.consumption import Consumption
from validation.lists import PAD, Lists, _decode, _narrow
from validation.scan import evenly_spaced_scores, in_sample, score_values
from validation.summary import Expectation, SummaryBuilder

N_ITEMS, K, N_FEATURES = 6, 4, 2
_SCORES = (0.0, -0.0, 0.5, 1.0, 1.0, 2.0, 65504.0, -0.25, math.inf, -math.inf, math.nan)


@dataclass(frozen=True)
class OneList:
    """A user's list as a build might write it, sound or not; tails are bytes left over."""

    user: int
    items: list[int]
    scores: list[float]
    features: list[float]
    history: list[int]
    item_tail: bytes = b""
    user_id: str = ""
    consumed: list[int] = field(default_factory=list)


@dataclass
class World:
    """consumed: what the dataset says, by user; its keys are the expected users."""

    lists: list[OneList]
    consumed: dict[int, set[int]]
    include_seen: bool
    user_ids: dict[int, str] = field(default_factory=dict)


_items = st.lists(st.one_of(st.integers(-2, N_ITEMS + 1), st.just(int(PAD))), max_size=7)
_one_list = st.builds(
    OneList,
    user=st.integers(0, 5),
    items=_items,
    scores=st.lists(st.sampled_from(_SCORES), max_size=7),
    features=st.lists(st.sampled_from((0.5, math.nan, math.inf)), min_size=1, max_size=3),
    history=st.lists(st.integers(-1, N_ITEMS), max_size=MAX_HISTORY + 2),
    item_tail=st.sampled_from((b"", b"\x01\x02")),
    consumed=st.lists(st.integers(-2, N_ITEMS), max_size=4),
)
_sound_list = st.permutations(range(N_ITEMS)).flatmap(
    lambda order: st.builds(
        OneList,
        user=st.integers(0, 5),
        items=st.just(list(order)[:K]),
        scores=st.lists(st.sampled_from((0.25, 0.5, 1.0)), min_size=K, max_size=K),
        features=st.just([0.5, 0.5]),
        history=st.just([1]),
    )
)
_worlds = st.builds(
    World,
    lists=st.lists(st.one_of(_one_list, _sound_list), max_size=12),
    consumed=st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, N_ITEMS - 1)), min_size=1),
    include_seen=st.booleans(),
)


def decode(found: list[OneList]) -> list[Lists]:
    rows = [
        {
            "user_index": one.user,
            "user_id": one.user_id or f"u{one.user}",
            "item_indices": np.array(one.items, "<i4").tobytes() + one.item_tail,
            "scores": np.array(one.scores, "<f2").tobytes(),
            "features": np.array(one.features, "<f2").tobytes(),
            "history": np.array(one.history, "<i4").tobytes(),
            "consumed": np.array(one.consumed, "<i4").tobytes(),
        }
        for one in found
    ]
    table = pa.Table.from_pylist(rows, schema=CANDIDATES_SCHEMA)
    return [
        _decode(part, n_features=N_FEATURES) for batch in table.to_batches(max_chunksize=5) for part in _narrow(batch)
    ]


def consumption_of(world: World) -> Consumption:
    pairs = sorted((user, item) for user, items in world.consumed.items() for item in items)
    return Consumption(
        users=np.array(sorted(world.consumed), np.int32),
        owner=np.array([user for user, _ in pairs], np.int32),
        item=np.array([item for _, item in pairs], np.int32),
        user_ids=world.user_ids,
    )


def summary(world: World) -> pd.DataFrame:
    builder = SummaryBuilder(Expectation(N_ITEMS, K, world.include_seen, consumption_of(world)))
    for part in decode(world.lists):
        builder.add(part)
    return builder.table()


def naive_defects(one: OneList, consumed: set[int], *, include_seen: bool) -> dict[str, int]:
    scores = [float(np.float16(score)) for score in one.scores]
    both = min(len(one.items), len(scores))
    unordered = 0
    for at in range(1, both):
        before, after = scores[at - 1], scores[at]
        if math.isnan(before) or math.isnan(after):
            continue
        if after > before or (after == before and one.items[at] < one.items[at - 1]):
            unordered += 1
    return {
        "n_duplicates": len(one.items) - len(set(one.items)),
        "n_outside_catalogue": sum(not 0 <= item < N_ITEMS for item in one.items),
        "n_history_outside": sum(not 0 <= item < N_ITEMS for item in one.history),
        "n_seen": 0 if include_seen else sum(item in consumed for item in one.items),
        "n_consumed_wrong": len(set(one.consumed) ^ (set() if include_seen else consumed))
        + len(one.consumed)
        - len(set(one.consumed)),
        "n_nan": sum(math.isnan(score) for score in scores),
        "n_infinite": sum(math.isinf(score) for score in scores),
        "n_negative": sum(score < 0 for score in scores),
        "n_unordered": unordered,
        "n_torn": bool(one.item_tail)
        + (len(one.items) != len(scores))
        + (len(one.features) != N_FEATURES)
        + (len(one.history) > MAX_HISTORY),
        "n_infinite_features": sum(math.isinf(value) for value in one.features[:N_FEATURES]),
    }


@settings(max_examples=sized(300, full=6000), deadline=None)
@given(_worlds)
def test_the_summary_counts_what_a_plain_loop_counts(world: World) -> None:
    table = summary(world)
    mine: dict[int, list[OneList]] = {}
    for one in world.lists:
        mine.setdefault(one.user, []).append(one)
    assert table["user_index"].tolist() == sorted({*mine, *world.consumed})
    for row in table.to_dict("records"):
        user = int(row["user_index"])
        consumed = world.consumed.get(user, set())
        found = mine.get(user, [])
        assert row["expected"] == (user in world.consumed)
        assert row["n_lists"] == len(found)
        assert row["length"] == min((len(one.items) for one in found), default=0)
        assert row["wanted_length"] == min(K, N_ITEMS - (0 if world.include_seen else len(consumed)))
        defects = [naive_defects(one, consumed, include_seen=world.include_seen) for one in found]
        for name in naive_defects(OneList(0, [], [], [0.5, 0.5], []), set(), include_seen=False):
            assert row[name] == sum(each[name] for each in defects), name


@settings(max_examples=sized(50, full=1000), deadline=None)
@given(_worlds)
def test_matrices_of_bounded_size_give_the_same_summary(world: World) -> None:
    wide = summary(world)
    before = lists_module.MAX_CELLS
    lists_module.MAX_CELLS = 3
    try:
        pd.testing.assert_frame_equal(summary(world), wide)
    finally:
        lists_module.MAX_CELLS = before


def test_an_id_is_right_where_it_is_the_datasets_and_nobody_elses() -> None:
    def one(user: int, user_id: str) -> OneList:
        return OneList(user, [0, 1], [1.0, 0.5], [0.5, 0.5], [], user_id=user_id)

    lists = [one(0, "a"), one(1, "x"), one(2, "c"), one(3, "c")]
    users = {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}
    table = summary(World(lists, {user: set() for user in users}, include_seen=False, user_ids=users))
    assert table["id_is_right"].tolist() == [True, False, False, False, True]
    assert table["user_id"].tolist() == ["a", "x", "c", "c", "e"]


_rows = st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1, max_size=6)


def padded(rows: list[list[int]]) -> Int32s:
    out = np.full((len(rows), 6), PAD, np.int32)
    for at, row in enumerate(rows):
        out[at, : len(row)] = row
    return out


@settings(max_examples=sized(200, full=4000), deadline=None)
@given(_rows)
def test_the_overlap_is_that_of_sets(rows: list[list[int]]) -> None:
    others = rows[::-1]
    wanted = [len(set(a) & set(b)) / len(set(a) | set(b)) if a or b else 1.0 for a, b in zip(rows, others, strict=True)]
    assert jaccard(padded(rows), padded(others)).tolist() == pytest.approx(wanted)


def test_recall_is_the_share_of_the_best_items_that_a_list_holds(tmp_path: Path) -> None:
    world = tiny_world(users=20, items=50)
    bench = Workbench(str(tmp_path), build_tiny_snapshot(str(tmp_path), world=world, k=10), world)

    def change(rows: list[dict[str, object]]) -> None:
        for user, row in enumerate(rows):
            products = bench.products(user)
            products[world.histories[user]] = -np.inf
            order = np.argsort(-products, kind="stable")
            bench.set_items(row, np.concatenate([order[: 10 - user % 4], order[12 : 12 + user % 4]]))

    bench.edit_rows(change)
    exact = bench.case().exact
    assert exact["recall"].tolist() == pytest.approx([(10 - user % 4) / 10 for user in range(20)])
    assert exact["n_wrong_scores"].sum() == 0


def test_a_sample_of_users_is_the_same_in_every_snapshot() -> None:
    ids = [f"user {number}" for number in range(5000)]
    chosen = in_sample(ids, share=0.2)
    assert 800 < chosen.sum() < 1200
    assert np.array_equal(in_sample(ids[::-1], share=0.2)[::-1], chosen)


@given(st.lists(st.sampled_from((0.0, 0.5, 1.5, 3.0, math.nan, math.inf)), max_size=30))
def test_evenly_spaced_scores_have_the_distribution_of_the_finite_scores(scores: list[float]) -> None:
    bits = np.array(scores, np.float16).view(np.uint16)
    counts = np.bincount(bits, minlength=len(score_values()))
    finite = sorted(score for score in scores if math.isfinite(score))
    assert evenly_spaced_scores(counts, n=len(finite)).tolist() == finite


def test_a_shift_of_half_a_standard_deviation_is_a_psi_of_a_quarter() -> None:
    rng = np.random.default_rng(0)
    psi = population_stability_index(rng.normal(0, 1, 200_000), rng.normal(0.5, 1, 200_000))
    assert psi == pytest.approx(0.25, abs=0.03)
