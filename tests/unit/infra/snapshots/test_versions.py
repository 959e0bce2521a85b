"""Versions on the store: allocation, attempts, sealing, states; every promise under a race or a crash."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from infra.contracts.errors import MoveNotAllowed, SnapshotCorrupt, SnapshotNotFound, StepMissing
from infra.contracts.snapshots import State
from infra.snapshots.tables import CANDIDATES, read_item_table, verify_part
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot


def test_builders_at_the_same_moment_get_versions_of_their_own(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), RANKING)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: store.allocate(generation=0, actor="t").version, range(20)))
    assert sorted(names, key=lambda name: int(name[1:])) == [f"v{number}" for number in range(1, 21)]


def test_an_attempt_that_failed_does_not_exist_for_the_next_step(tmp_path: Path) -> None:
    version = SnapshotStore(str(tmp_path), RANKING).allocate(generation=0, actor="t")
    with pytest.raises(RuntimeError), version.attempt("embeddings") as attempt:
        version.storage.write(f"{attempt.path}/half.parquet", b"x")
        raise RuntimeError("killed")
    with pytest.raises(StepMissing, match="no completed step 'embeddings'"):
        version.latest("embeddings")
    with version.attempt("embeddings", parents={"dataset": "d"}) as attempt:
        attempt.figures["dim"] = 8
    assert version.latest("embeddings").path == attempt.path
    assert version.latest("embeddings").figures == {"dim": 8}


def test_a_snapshot_exists_only_once_its_manifest_does(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path), seal=False)
    assert not version.sealed
    assert version.state() is State.BUILDING
    with pytest.raises(SnapshotNotFound, match="make snapshot"):
        version.manifest()


def test_sealing_again_with_other_content_is_refused_and_with_the_same_is_not(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    manifest = version.manifest()
    version.seal(manifest, actor="again")
    with pytest.raises(MoveNotAllowed):
        version.seal(replace(manifest, parts={}), actor="other")
    assert [record.state for record in version.history()] == [State.STAGED]


def test_a_crash_between_manifest_and_state_is_mended_by_sealing_again(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    manifest = version.manifest()
    version.storage.remove("states")
    version.seal(manifest, actor="again")
    assert version.state() is State.STAGED


def test_states_are_recorded_in_order_and_a_forbidden_move_leaves_no_record(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    with pytest.raises(
        MoveNotAllowed, match=r"ranking/v1 is STAGED and cannot become LIVE\. Run: make validate VERSION=v1"
    ):
        version.record(State.LIVE, actor="t", reason="no")
    version.record(State.VALIDATED, actor="gate", reason="all checks passed")
    version.record(State.LIVE, actor="t", reason="go")
    assert [(record.state, record.actor) for record in version.history()] == [
        (State.STAGED, "test"),
        (State.VALIDATED, "gate"),
        (State.LIVE, "t"),
    ]


def test_two_judges_at_once_leave_one_verdict_after_the_other(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    version.record(State.VALIDATED, actor="gate", reason="")

    def go_live(actor: int) -> bool:
        try:
            version.record(State.LIVE, actor=str(actor), reason="")
        except MoveNotAllowed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(go_live, range(16))) == 1
    assert len(version.history()) == 3


def test_a_changed_byte_in_a_part_is_found(tmp_path: Path) -> None:
    version = build_tiny_snapshot(str(tmp_path))
    manifest = version.manifest()
    name = sorted(manifest.parts[CANDIDATES].files)[0]
    content = bytearray(version.storage.read(name))
    content[100] ^= 1
    version.storage.write(name, bytes(content))
    with pytest.raises(SnapshotCorrupt, match="its manifest promises"):
        verify_part(version, manifest, CANDIDATES)


def test_a_snapshot_lives_on_an_object_store_as_well_as_on_a_disk() -> None:
    version = build_tiny_snapshot("memory://object-store")
    manifest = version.manifest()
    assert read_item_table(version.storage, verify_part(version, manifest, "item_table")).index_of["i7"] == 7
    version.record(State.VALIDATED, actor="gate", reason="")
    assert json.loads(version.storage.read("states/000002.json"))["state"] == "VALIDATED"


def test_an_unknown_version_names_the_ones_there_are(tmp_path: Path) -> None:
    build_tiny_snapshot(str(tmp_path))
    with pytest.raises(SnapshotNotFound, match="no snapshot ranking/v9; the newest are: v1"):
        SnapshotStore(str(tmp_path), RANKING).get("v9")
