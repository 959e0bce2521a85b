"""The ranker's features: the fast function against one written out item by item, and what changes their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.catalog.features import ranking
from infra.catalog.features.ranking import (
    BATCH_FEATURES,
    CONTEXT_FEATURES,
    CROSS_FEATURES,
    DEVICES,
    FEATURE_GROUPS,
    ITEM_FEATURES,
    MAX_GENRES,
    NEARLINE_FEATURES,
    RANKER_FEATURES,
    USER_FEATURES,
    ItemColumns,
    Moment,
    genre_matrix,
    ranker_matrix,
)
from infra.contracts.errors import ContractViolation

GENRES = ["Drama", "Comedy", "Music", "Nature"]


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[list[str]], ItemColumns]:
    n = draw(st.integers(1, 12))
    genres = draw(st.lists(st.lists(st.sampled_from(GENRES), unique=True, max_size=3), min_size=n, max_size=n))
    creators = draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    features = rng.normal(size=(n, len(ITEM_FEATURES))).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    return genres, ItemColumns(features, genre_matrix(genres)[0], np.array(creators, np.int32))


def cosine(a: list[str], b: list[str]) -> float:
    return len(set(a) & set(b)) / math.sqrt(len(a) * len(b)) if a and b else 0.0


def oracle(
    user: np.ndarray,
    genres: list[list[str]],
    items: ItemColumns,
    item: int,
    score: float,
    rank: int,
    best: float,
    history: list[int],
    moment: Moment,
    products: list[float],
) -> list[float]:
    """One row, written out."""
    matches = [cosine(genres[item], genres[seen]) for seen in history]
    creator = items.creators[item]
    same = [creator >= 0 and items.creators[seen] == creator for seen in history]
    cross = {
        "retrieval_score": score,
        "retrieval_score_share": score / max(best, 1e-6),
        "retrieval_rank_log": math.log1p(rank),
        "genre_match": sum(matches) / len(matches) if matches else 0.0,
        "genre_match_last": matches[0] if matches else 0.0,
        "creator_match": sum(same) / len(same) if same else 0.0,
        "age_gap": abs(
            float(user[USER_FEATURES.index("user_age_years")])
            - float(items.features[item, ITEM_FEATURES.index("item_mean_user_age")])
        ),
    }
    recent = moment.recent.tolist()
    same = [creator >= 0 and items.creators[seen] == creator for seen in recent]
    board = dict(zip(moment.trending.tolist(), moment.trending_counts.tolist(), strict=True))
    angle = 2 * math.pi * moment.hour / 24
    cross |= {
        "clicks_last_hour_log": math.log1p(moment.clicks_last_hour),
        "purchases_last_hour_log": math.log1p(moment.purchases_last_hour),
        "clicks_in_session_log": math.log1p(moment.clicks_in_session),
        "recent_match": products[0],
        "last_match": products[1],
        "recent_creator_match": sum(same) / len(same) if same else 0.0,
        "item_trending_log": math.log1p(board.get(item, 0)),
        "session_length_log": math.log1p(len(recent)),
        "hour_sin": math.sin(angle),
        "hour_cos": math.cos(angle),
        "device_code": DEVICES.index(moment.device) if moment.device else math.nan,
    }
    later = (*CROSS_FEATURES, *NEARLINE_FEATURES, *CONTEXT_FEATURES)
    return [*user.tolist(), *items.features[item].tolist(), *(cross[name] for name in later)]


@st.composite
def moments(draw: st.DrawFn, n: int) -> Moment:
    numbers = st.integers(0, n - 1)
    trending = draw(st.lists(numbers, max_size=n, unique=True))
    return Moment(
        clicks_last_hour=draw(st.integers(0, 10_000)),
        purchases_last_hour=draw(st.integers(0, 10_000)),
        clicks_in_session=draw(st.integers(0, 10_000)),
        recent=np.array(draw(st.lists(numbers, max_size=5, unique=True)), np.int32),
        trending=np.array(trending, np.int32),
        trending_counts=np.array([draw(st.integers(1, 500)) for _ in trending], np.int64),
        hour=draw(st.integers(0, 23)),
        device=draw(st.sampled_from(("", *DEVICES))),
    )


@given(catalogues(), st.data())
def test_every_row_is_what_the_definitions_say(
    catalogue: tuple[list[list[str]], ItemColumns], data: st.DataObject
) -> None:
    genres, items = catalogue
    n = len(genres)
    numbers = st.integers(0, n - 1)
    history = data.draw(st.lists(numbers, max_size=6))
    chosen = data.draw(st.lists(numbers, max_size=n, unique=True))
    user = np.array(data.draw(st.lists(st.floats(-8, 80, width=16), min_size=5, max_size=5)), np.float16)
    scores = np.sort(np.array(data.draw(st.lists(st.floats(0, 10, width=16), min_size=n, max_size=n))))[::-1]
    ranks = np.arange(len(chosen))
    moment = data.draw(moments(n))
    matches = np.random.default_rng(len(chosen)).normal(size=(len(chosen), 2)).astype(np.float32)
    found = ranker_matrix(
        user,
        items,
        item_indices=np.array(chosen, np.int32),
        scores=scores[: len(chosen)].astype(np.float16),
        ranks=ranks,
        best_score=float(scores[0]),
        history=np.array(history, np.int32),
        moment=moment,
        matches=matches,
    )
    wanted = [
        oracle(
            user,
            genres,
            items,
            item,
            float(scores[at]),
            at,
            float(scores[0]),
            history,
            moment,
            matches[at].tolist(),
        )
        for at, item in enumerate(chosen)
    ]
    assert found.dtype == np.float32 and found.shape == (len(chosen), len(RANKER_FEATURES))
    np.testing.assert_allclose(found, np.array(wanted, np.float64).reshape(found.shape), rtol=2e-3, atol=1e-5)


def test_a_part_of_a_list_has_the_features_it_has_in_the_whole() -> None:
    rng = np.random.default_rng(0)
    items = ItemColumns(
        rng.random((50, len(ITEM_FEATURES))).astype(np.float32),
        genre_matrix([[GENRES[at % 4]] for at in range(50)])[0],
        rng.integers(-1, 5, 50).astype(np.int32),
    )
    indices, scores = rng.permutation(50).astype(np.int32), np.sort(rng.random(50))[::-1].astype(np.float16)
    user, history = rng.random(5).astype(np.float16), np.array([3, 1, 4], np.int32)
    part = np.array([0, 7, 30])
    whole = ranker_matrix(
        user, items, item_indices=indices, scores=scores, ranks=np.arange(50), best_score=scores[0], history=history
    )
    some = ranker_matrix(
        user, items, item_indices=indices[part], scores=scores[part], ranks=part, best_score=scores[0], history=history
    )
    assert some.tobytes() == whole[part].tobytes()


def test_every_feature_belongs_to_one_of_the_three_groups() -> None:
    assert tuple(name for group in FEATURE_GROUPS.values() for name in group) == RANKER_FEATURES
    assert len(set(RANKER_FEATURES)) == len(RANKER_FEATURES) == 30 and len(BATCH_FEATURES) == 19


def test_without_a_moment_nothing_was_done_lately() -> None:
    items = ItemColumns(
        np.zeros((2, len(ITEM_FEATURES)), np.float32), np.zeros((2, 1), np.float32), np.zeros(2, np.int32)
    )
    none = np.zeros(0, np.int32)
    matrix = ranker_matrix(
        np.zeros(5, np.float16),
        items,
        item_indices=np.arange(2, dtype=np.int32),
        scores=np.ones(2),
        ranks=np.arange(2),
        best_score=1.0,
        history=none,
    )
    nearline = [RANKER_FEATURES.index(name) for name in NEARLINE_FEATURES]
    assert not matrix[:, nearline].any() and np.isnan(matrix[:, RANKER_FEATURES.index("device_code")]).all()


def test_a_user_with_another_number_of_features_is_refused() -> None:
    items = ItemColumns(
        np.zeros((1, len(ITEM_FEATURES)), np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.int32)
    )
    none = np.zeros(0, np.int32)
    with pytest.raises(ContractViolation, match="A user has 4 features; wanted 5"):
        ranker_matrix(
            np.zeros(4, np.float16),
            items,
            item_indices=none,
            scores=np.zeros(0),
            ranks=none,
            best_score=1.0,
            history=none,
        )


def test_genres_become_unit_rows_and_only_the_most_frequent_get_a_column() -> None:
    rare = [[f"rare {number:03d}"] for number in range(MAX_GENRES + 20)]
    matrix, names = genre_matrix([["Drama", "Music"], ["Drama"], [], ["Drama", "Drama"], *rare])
    assert matrix.shape == (4 + len(rare), MAX_GENRES) and names[0] == "Drama"
    np.testing.assert_allclose(np.linalg.norm(matrix[[0, 1, 3]], axis=1), 1.0)
    assert not matrix[2].any() and not matrix[-1].any()


def test_no_genres_at_all_still_make_a_matrix() -> None:
    matrix, names = genre_matrix([[], []])
    assert matrix.shape == (2, 1) and not matrix.any() and names == ()


@pytest.mark.parametrize(
    "changed",
    [RANKER_FEATURES[:-1], (*RANKER_FEATURES, "new"), RANKER_FEATURES[::-1], ("renamed", *RANKER_FEATURES[1:])],
    ids=["dropped", "added", "moved", "renamed"],
)
def test_the_definitions_hash_changes_with_the_features(
    changed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ranking.definition_hash()
    assert ranking.definition_hash() == before
    monkeypatch.setattr(ranking, "RANKER_FEATURES", changed)
    assert ranking.definition_hash() != before
