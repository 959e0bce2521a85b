"""Each stage is judged on what the stages before it leave, as serving runs them; what adds nothing for sure is off."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np

from spark_jobs.training.ablation import ablation
from spark_jobs.training.examples import Examples
from spark_jobs.training.worth import Rows, headed, paired, stages_on
from tests.unit.spark_jobs.training.test_ranker import examples


def _knowing(some: Examples, *, noise: float, seed: int) -> np.ndarray:
    """float32 [rows]: what was taken stands first, but for the noise."""
    drawn = np.random.default_rng(seed).normal(size=len(some.grades))
    return (some.grades + noise * drawn).astype(np.float32)


def test_the_interval_is_of_the_paired_difference_and_the_same_for_a_seed() -> None:
    difference = np.random.default_rng(1).normal(0.1, 1.0, 400)
    gain = paired(difference, seed=3)
    half = 1.96 * difference.std() / 20
    assert gain.mean == difference.mean() and gain == paired(difference, seed=3) != paired(difference, seed=4)
    np.testing.assert_allclose((gain.low95, gain.high95), (gain.mean - half, gain.mean + half), atol=0.02)
    assert paired(np.zeros(0), seed=1).low95 == 0


def test_stages_that_know_more_are_on_and_each_is_measured_from_the_one_before() -> None:
    some = examples(users=200, rows=40)
    light, trees, network = (_knowing(some, noise=noise, seed=at) for at, noise in enumerate((0.8, 0.3, 0.05)))
    told = stages_on(some, light=light.__getitem__, trees=trees.__getitem__, network=network.__getitem__, seed=1)
    assert [one.name for one in told] == ["retrieval", "light", "ranker", "network"] and all(one.on for one in told)
    for before, after in pairwise(told):
        np.testing.assert_allclose(after.gain.mean, after.ndcg10 - before.ndcg10, atol=1e-12)
        assert after.gain.low95 > 0


def test_a_stage_that_adds_nothing_is_off_and_the_next_is_measured_without_it() -> None:
    some = examples(users=200, rows=40)
    noise = np.random.default_rng(5).normal(size=len(some.grades)).astype(np.float32)
    trees = _knowing(some, noise=0.2, seed=2)
    told = {
        one.name: one for one in stages_on(some, light=noise.__getitem__, trees=trees.__getitem__, network=None, seed=1)
    }
    assert not told["light"].on and told["ranker"].on
    np.testing.assert_allclose(told["ranker"].gain.mean, told["ranker"].ndcg10 - told["retrieval"].ndcg10, atol=1e-12)


def test_a_network_is_off_where_the_trees_are_whose_scores_it_takes() -> None:
    some = examples(users=100, rows=40)
    noise = np.random.default_rng(5).normal(size=len(some.grades)).astype(np.float32)
    knowing = _knowing(some, noise=0.0, seed=1)
    told = stages_on(some, light=None, trees=noise.__getitem__, network=knowing.__getitem__, seed=1)
    assert [(one.name, one.on) for one in told] == [("retrieval", True), ("ranker", False), ("network", False)]


def test_only_the_head_is_scored_and_the_others_stay_behind_it_in_order() -> None:
    some = examples(users=3, rows=6)
    before = np.tile(np.array([1, 6, 2, 5, 3, 4], np.float32), 3)
    asked: list[int] = []

    def scorer(rows: Rows) -> np.ndarray:
        asked.extend(rows.tolist())
        return np.where(rows % 6 == 3, 9.0, 7.0).astype(np.float32)

    made = headed(some, before, scorer, most=2).reshape(3, 6)
    assert sorted(asked) == [1, 3, 7, 9, 13, 15]
    assert made[0].tolist() == [3.0, 7.0, 4.0, 9.0, 5.0, 6.0] and np.array_equal(made[0], made[2])


def test_the_group_that_decides_is_missed_and_the_others_are_not() -> None:
    told = {
        one.group: one for one in ablation(examples(users=240, rows=30), examples(users=80, rows=30, seed=4), seed=1)
    }
    assert told["batch"].loss.low95 > 0.1, "what is taken is told by the genre match"
    assert abs(told["nearline"].loss.mean) < 0.1 and abs(told["context"].loss.mean) < 0.1
    nothing = dataclasses.replace(examples(users=240, rows=30), grades=np.zeros(7200, np.uint8))
    assert ablation(nothing, examples(users=9, rows=30), seed=1) == ()
