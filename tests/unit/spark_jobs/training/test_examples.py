"""One user's list as an example: grades, positions and features as they were stored, whatever is left out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from infra.catalog.features.ranking import ITEM_FEATURES, RANKER_FEATURES, USER_FEATURES, ItemColumns
from spark_jobs.training.examples import Known, Listed, Sampling, example

ITEMS = 40


@pytest.fixture
def known() -> Known:
    rng = np.random.default_rng(1)
    columns = ItemColumns(
        rng.random((ITEMS, len(ITEM_FEATURES))).astype(np.float32),
        rng.random((ITEMS, 3)).astype(np.float32),
        rng.integers(-1, 5, ITEMS).astype(np.int32),
    )
    return Known(columns, np.ones(ITEMS, bool), np.arange(ITEMS, dtype=np.int32)[::-1], include_seen=False)


@pytest.fixture
def user() -> Listed:
    rng = np.random.default_rng(2)
    return Listed(
        user_index=7,
        item_indices=rng.permutation(30)[:25].astype(np.int32),
        scores=np.linspace(3, 1, 25).astype(np.float16),
        features=rng.random(len(USER_FEATURES)).astype(np.float16),
        history=np.array([38, 39], np.int32),
        taken=np.array([38, 39], np.int32),
        wanted_items=np.array([], np.int32),
        wanted_grades=np.array([], np.int32),
    )


def _wanting(user: Listed, *positions: int, grade: int = 1) -> Listed:
    items = np.sort(user.item_indices[list(positions)])
    return dataclasses.replace(user, wanted_items=items, wanted_grades=np.full(len(items), grade, np.int32))


def _column(row: dict[str, object], name: str) -> np.ndarray:
    dtype = {"features": "<f4", "grades": "u1", "ranks": "<i4", "popular_hits": "?"}[name]
    content = row[name]
    assert isinstance(content, bytes)
    return np.frombuffer(content, dtype)


def test_taken_candidates_carry_their_grade_and_the_rest_none(user: Listed, known: Known) -> None:
    row = example(_wanting(user, 3, 9, grade=2), known, Sampling(1, None, 1))
    assert np.flatnonzero(_column(row, "grades")).tolist() == [3, 9] and _column(row, "grades").max() == 2
    assert row["n_wanted"] == 2


def test_a_sample_keeps_every_taken_one_and_the_features_of_its_place_in_the_whole_list(
    user: Listed, known: Known
) -> None:
    wanting = _wanting(user, 3, 19)
    whole, part = (example(wanting, known, Sampling(1, n, 1)) for n in (None, 6))
    ranks = _column(part, "ranks")
    assert len(ranks) == 8 and {3, 19} <= set(ranks.tolist()) and np.all(np.diff(ranks) > 0)
    matrix = _column(whole, "features").reshape(-1, len(RANKER_FEATURES))
    np.testing.assert_array_equal(_column(part, "features").reshape(8, -1), matrix[ranks])
    assert _column(example(wanting, known, Sampling(1, 6, 2)), "ranks").tolist() != ranks.tolist()


def test_what_was_taken_before_is_not_wanted_anew_unless_the_snapshot_includes_it(user: Listed, known: Known) -> None:
    again = dataclasses.replace(user, wanted_items=np.array([39], np.int32), wanted_grades=np.array([2], np.int32))
    row = example(again, known, Sampling(1, None, 1))
    assert row["n_wanted"] == 0 and not _column(row, "popular_hits").any()
    shop = dataclasses.replace(known, include_seen=True)
    row = example(again, shop, Sampling(1, None, 1))
    assert row["n_wanted"] == 1 and _column(row, "popular_hits").tolist() == [True] + [False] * 9


def test_popularity_is_judged_on_the_first_ten_that_the_user_had_not_taken(user: Listed, known: Known) -> None:
    wanting = dataclasses.replace(user, wanted_items=np.array([28, 37], np.int32), wanted_grades=np.ones(2, np.int32))
    hits = _column(example(wanting, known, Sampling(1, None, 1)), "popular_hits")
    assert np.flatnonzero(hits).tolist() == [0, 9], "39 and 38 are hidden, so 37 stands first and 28 tenth"


def test_an_item_not_born_yet_leaves_the_list_and_the_others_move_up(user: Listed, known: Known) -> None:
    existed = known.existed.copy()
    existed[user.item_indices[0]] = False
    row = example(_wanting(user, 1), dataclasses.replace(known, existed=existed), Sampling(1, None, 1))
    assert len(_column(row, "grades")) == 24 and _column(row, "grades")[0] == 1
    share = _column(row, "features").reshape(24, -1)[0, RANKER_FEATURES.index("retrieval_score_share")]
    assert share == 1.0, "the best of those that there were"
