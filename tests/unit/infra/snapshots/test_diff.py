"""What users would notice between two versions, against a naive count over all lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.contracts.candidates import ScoreMap
from infra.snapshots.diff import compare
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.tiny_snapshot import RANKING, TinyWorld, build_tiny_snapshot, candidate_rows, tiny_world


def build(root: Path, world: TinyWorld, **named: object) -> Version:
    return build_tiny_snapshot(str(root), world=world, **named)  # type: ignore[arg-type]


def lists(world: TinyWorld, *, k: int) -> dict[str, list[int]]:
    rows = candidate_rows(world, k=k, score_map=ScoreMap(2.0))
    return {str(row["user_id"]): np.frombuffer(bytes(row["item_indices"]), "<i4").tolist() for row in rows}  # type: ignore[call-overload]


def test_a_version_differs_from_itself_in_nothing(tmp_path: Path) -> None:
    version = build(tmp_path, tiny_world())
    found = compare(version, version, users=1000)
    assert found.overlap_mean == {10: 1.0, 100: 1.0}
    assert (found.disjoint_fraction, found.score_psi, found.popularity_psi) == (0.0, 0.0, 0.0)
    assert (found.users_in_both, found.users_left, found.users_new) == (120, 0, 0)
    assert found.before == found.after


def test_overlap_and_coverage_are_what_a_naive_count_says(tmp_path: Path) -> None:
    old = tiny_world(users=50, items=80)
    rng = np.random.default_rng(5)
    new = replace(
        old,
        user_vectors=old.user_vectors + rng.normal(size=old.user_vectors.shape).astype(np.float32),
        user_ids=[f"u{user}" for user in range(10, 60)],
    )
    before, after = build(tmp_path, old, k=40), build(tmp_path, new, k=40)
    found = compare(before, after, users=1000)
    was, is_now = lists(old, k=40), lists(new, k=40)
    both = sorted(was.keys() & is_now.keys())
    shares = [len(set(was[user][:10]) & set(is_now[user][:10])) / 10 for user in both]
    assert found.overlap_mean[10] == pytest.approx(float(np.mean(shares)))
    assert found.disjoint_fraction == pytest.approx(float(np.mean(np.array(shares) == 0)))
    assert (found.users_in_both, found.users_left, found.users_new) == (40, 10, 10)
    shown = {item for user in is_now.values() for item in user[:10]}
    assert found.after.items_shown_fraction == pytest.approx(len(shown) / 80)


def test_items_are_the_same_by_their_id_not_by_their_place(tmp_path: Path) -> None:
    world = tiny_world(users=30, items=60)
    before = build(tmp_path, world, k=20)
    after = build(tmp_path, tiny_world(users=30, items=90, seed=1), k=20)
    found = compare(before, after, users=1000)
    assert (found.before.items, found.after.items) == (60, 90)
    was, is_now = lists(world, k=20), lists(tiny_world(users=30, items=90, seed=1), k=20)
    shares = [len(set(was[user][:10]) & set(is_now[user][:10])) / 10 for user in was]
    assert found.overlap_mean[10] == pytest.approx(float(np.mean(shares)))


def test_a_drawn_share_of_users_is_the_same_in_both_and_each_time(tmp_path: Path) -> None:
    world = tiny_world(users=400, items=60)
    before, after = build(tmp_path, world, k=10), build(tmp_path, world, k=10)
    found = compare(before, after, users=100)
    assert 40 < found.before.compared < 180
    assert found.before.compared == found.after.compared == found.users_in_both
    assert found == compare(before, after, users=100)
    assert SnapshotStore(str(tmp_path), RANKING).versions() == ["v1", "v2"]
