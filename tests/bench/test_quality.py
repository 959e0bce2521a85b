"""Quality is judged by the published protocol, as counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.bench.quality import best_unseen, by_popularity, distinct, judge, without

PAST = distinct(np.array([0, 0, 1, 1, 2, 0]), np.array([3, 1, 3, 2, 3, 3]), n_users=4, n_items=5)


def test_repeats_count_once_and_what_was_taken_before_is_not_later() -> None:
    assert (PAST.users.tolist(), PAST.items.tolist()) == ([0, 0, 1, 1, 2], [1, 3, 2, 3, 3])
    later = distinct(np.array([0, 0, 3]), np.array([3, 4, 3]), n_users=4, n_items=5)
    left = without(later, PAST)
    assert (left.users.tolist(), left.items.tolist()) == ([0, 3], [4, 3])


def test_recall_and_ndcg_are_means_over_the_users_who_took_something() -> None:
    later = distinct(np.array([0, 0, 1]), np.array([4, 0, 4]), n_users=4, n_items=5)
    lists = np.array([[2, 4, -1], [0, 1, -1], [0, 1, 2]], np.int32)
    found = judge(lists, later.matrix, np.array([0, 1, 2], np.int32))
    gained, ideal = 1 / math.log2(3), 1 + 1 / math.log2(3)
    assert found.recall_at_20 == found.recall_at_1000 == 0.25
    assert found.ndcg_at_20 == pytest.approx(gained / ideal / 2, abs=1e-4)


def test_popularity_leaves_out_what_a_user_has_and_agrees_with_ranking_by_counts() -> None:
    users = np.arange(4, dtype=np.int32)
    lists = by_popularity(PAST, users)
    assert lists[0, :4].tolist() == [2, 0, 4, -1] and lists[3, :5].tolist() == [3, 1, 2, 0, 4]
    counts = np.tile(np.array([0, 1, 1, 3, 0], np.float32), (4, 1))
    np.testing.assert_array_equal(lists[:, :5], best_unseen(counts, PAST.matrix))


def test_what_can_not_be_is_not_listed() -> None:
    scores = np.array([[1.0, -np.inf, 3.0, 2.0, 0.0]], np.float32)
    assert best_unseen(scores, PAST.matrix[3:]).tolist() == [[2, 3, 0, 4, -1]]
