"""The state table and the manifest: what is allowed, what is refused, and that a manifest cannot be changed unseen."""

from __future__ import annotations

import itertools
import json

import pytest

from infra.contracts.errors import MoveNotAllowed, SnapshotCorrupt
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import ALLOWED_MOVES, Manifest, State, check_move
from tests.fixtures.tiny_snapshot import build_tiny_snapshot


@pytest.mark.parametrize(("seen", "wanted"), list(itertools.product(State, State)))
def test_every_move_outside_the_table_is_refused_with_both_states_named(seen: State, wanted: State) -> None:
    if wanted in ALLOWED_MOVES[seen]:
        check_move(snapshot="ranking/v1", version=VersionName("v1"), seen=seen, wanted=wanted)
        return
    with pytest.raises(MoveNotAllowed, match=f"ranking/v1 is {seen} and cannot become {wanted}"):
        check_move(snapshot="ranking/v1", version=VersionName("v1"), seen=seen, wanted=wanted)


def test_nothing_goes_live_without_having_been_validated() -> None:
    assert State.LIVE not in ALLOWED_MOVES[State.STAGED] | ALLOWED_MOVES[State.BUILDING] | ALLOWED_MOVES[State.REJECTED]


def test_a_manifest_survives_its_json(tmp_path: object) -> None:
    manifest = build_tiny_snapshot(str(tmp_path)).manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_with_one_changed_figure_is_corrupt(tmp_path: object) -> None:
    text = build_tiny_snapshot(str(tmp_path)).manifest().to_json()
    with pytest.raises(SnapshotCorrupt, match="states digest"):
        Manifest.from_json(text.replace('"candidates_per_user": 100', '"candidates_per_user": 101'))


def test_a_manifest_of_another_release_says_what_is_strange_and_what_to_do(tmp_path: object) -> None:
    fields = json.loads(build_tiny_snapshot(str(tmp_path)).manifest().to_json())
    del fields["score_scale"]
    with pytest.raises(
        SnapshotCorrupt,
        match=r"ranking/v1 was sealed by another release: it lacks score_scale, and has novelty .*make snapshot",
    ):
        Manifest.from_json(json.dumps(fields | {"novelty": 1}))


def test_the_root_of_the_records_is_covered_by_the_digest(tmp_path: object) -> None:
    manifest = build_tiny_snapshot(str(tmp_path)).manifest()
    for other in ("0" * 64, ""):
        with pytest.raises(SnapshotCorrupt, match="states digest"):
            Manifest.from_json(manifest.to_json().replace(manifest.records_root, other))
