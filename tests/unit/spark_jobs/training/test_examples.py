"""One user's list as an example: grades, positions and features as they were stored and as the moment had them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from infra.catalog.features.ranking import ITEM_FEATURES, RANKER_FEATURES, USER_FEATURES, ItemColumns
from infra.contracts.candidates import ScoreMap
from infra.snapshots.tables import UserProjection
from spark_jobs.training.moments import NOBODY
from spark_jobs.training.one_list import Known, Listed, Sampling, example
from tests.unit.spark_jobs.training.test_moments import lived

ITEMS = 40


@pytest.fixture
def known() -> Known:
    rng = np.random.default_rng(1)
    columns = ItemColumns(
        rng.random((ITEMS, len(ITEM_FEATURES))).astype(np.float32),
        rng.random((ITEMS, 3)).astype(np.float32),
        rng.integers(-1, 5, ITEMS).astype(np.int32),
    )
    return Known(
        items=columns,
        existed=np.ones(ITEMS, bool),
        popular=np.arange(ITEMS, dtype=np.int32)[::-1],
        crowd=NOBODY,
        item_vectors=rng.normal(size=(ITEMS, 4)).astype(np.float32),
        projection=UserProjection(np.ones(ITEMS, np.float32), np.ones(4, np.float32)),
        score_map=ScoreMap(1.0),
        include_seen=False,
    )


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
        lived=lived(),
    )


def _wanting(user: Listed, *positions: int, kind: str = "click") -> Listed:
    """Who takes the items at those positions, all at one moment, of which nothing is known before."""
    return _taking(user, *user.item_indices[list(positions)].tolist(), kind=kind)


def _taking(user: Listed, *items: int, kind: str = "click") -> Listed:
    return dataclasses.replace(user, lived=lived(*((600, item, kind) for item in sorted(items))))


def _made(user: Listed, known: Known, *, negatives: int | None = None, seed: int = 1) -> dict[str, object]:
    row = example(user, known, known.search(), Sampling(1, negatives, seed))
    assert row is not None
    return row


def _column(row: dict[str, object], name: str) -> np.ndarray:
    dtype = {"features": "<f4", "grades": "u1", "popular_hits": "?", "products": "<f4"}[name]
    content = row[name]
    assert isinstance(content, bytes)
    return np.frombuffer(content, dtype)


def _ranks(row: dict[str, object]) -> np.ndarray:
    """int64 [rows]: as the ranker sees them."""
    matrix = _column(row, "features").reshape(-1, len(RANKER_FEATURES))
    return np.rint(np.expm1(matrix[:, RANKER_FEATURES.index("retrieval_rank_log")])).astype(np.int64)


def test_taken_candidates_carry_their_grade_and_the_rest_none(user: Listed, known: Known) -> None:
    row = _made(_wanting(user, 3, 9, kind="purchase"), known)
    assert np.flatnonzero(_column(row, "grades")).tolist() == [3, 9] and _column(row, "grades").max() == 2
    assert row["n_wanted"] == 2


def test_a_sample_keeps_every_taken_one_and_the_features_of_its_place_in_the_whole_list(
    user: Listed, known: Known
) -> None:
    wanting = _wanting(user, 3, 19)
    whole, part = (_made(wanting, known, negatives=n) for n in (None, 6))
    ranks = _ranks(part)
    assert len(ranks) == 8 and {3, 19} <= set(ranks.tolist()) and np.all(np.diff(ranks) > 0)
    matrix = _column(whole, "features").reshape(-1, len(RANKER_FEATURES))
    np.testing.assert_array_equal(_column(part, "features").reshape(8, -1), matrix[ranks])
    assert _ranks(_made(wanting, known, negatives=6, seed=2)).tolist() != ranks.tolist()


def test_what_was_taken_before_is_not_wanted_anew_unless_the_snapshot_includes_it(user: Listed, known: Known) -> None:
    again = _taking(user, 39, kind="purchase")
    assert example(again, known, known.search(), Sampling(1, None, 1)) is None
    shop = dataclasses.replace(known, include_seen=True)
    row = _made(again, shop)
    assert row["n_wanted"] == 1 and _column(row, "popular_hits").tolist() == [True] + [False] * 9


def test_popularity_is_judged_on_the_first_ten_that_the_user_had_not_taken(user: Listed, known: Known) -> None:
    hits = _column(_made(_taking(user, 28, 37), known), "popular_hits")
    assert np.flatnonzero(hits).tolist() == [0, 9], "39 and 38 are hidden, so 37 stands first and 28 tenth"


def test_an_item_not_born_yet_leaves_the_list_and_the_others_move_up(user: Listed, known: Known) -> None:
    existed = known.existed.copy()
    existed[user.item_indices[0]] = False
    row = _made(_wanting(user, 1), dataclasses.replace(known, existed=existed))
    assert len(_column(row, "grades")) == 24 and _column(row, "grades")[0] == 1
    share = _column(row, "features").reshape(24, -1)[0, RANKER_FEATURES.index("retrieval_score_share")]
    assert share == 1.0, "the best of those that there were"


def test_in_a_visit_what_was_just_taken_leaves_the_list_and_what_goes_with_it_comes_in(
    user: Listed, known: Known
) -> None:
    first, then = (int(user.item_indices[at]) for at in (4, 7))
    visit = lived((600, first, "click"), (605, then, "click"))
    rows = [_made(dataclasses.replace(user, lived=visit, user_index=number), known) for number in range(20)]
    warm = next(row for row in rows if row["n_wanted"] == 1)
    cold = next(row for row in rows if row["n_wanted"] == 2)
    n = len(user.item_indices)
    assert len(_column(cold, "grades")) == n and not _column(cold, "products").any()
    matrix = _column(warm, "features").reshape(-1, len(RANKER_FEATURES))
    n_fresh = len(matrix) - (n - 1)
    assert n_fresh == ITEMS - n - len(user.taken), "every other item that was not taken; what was just taken is gone"
    assert _ranks(warm)[: n - 1].tolist() == [rank for rank in range(n) if rank != 4]
    last, recent = (matrix[:, RANKER_FEATURES.index(name)] for name in ("last_match", "recent_match"))
    products = _column(warm, "products").reshape(len(matrix), -1)
    np.testing.assert_array_equal(last, products[:, 0])
    np.testing.assert_array_equal(last, recent)
    assert last.any() and not products[:, 1:].any(), "one item alone was taken so far"
    assert _column(warm, "grades").sum() == 1
