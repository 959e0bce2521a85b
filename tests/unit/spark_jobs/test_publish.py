"""Sealing: the steps that belong together, every file digested, once; and what is sealed can be served and judged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.catalog.features import ranking as features
from infra.contracts.errors import SnapshotCorrupt, SnapshotNotFound, StepMissing
from infra.contracts.snapshots import State
from infra.snapshots import tables
from infra.snapshots.chunks import read_chunks
from infra.snapshots.versions import Version
from spark_jobs.publish import manifest_of, publish, steps_of
from tests.fixtures.full_disk import on_a_full_disk
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, tiny_stages

LATER = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """Unsealed, all steps done, with the figures that the steps leave."""
    built = build_tiny_snapshot(str(tmp_path), seal=False, generation=4)
    embedded, made, trained = (built.latest(step).path for step in ("embeddings", "candidates", "training"))
    shutil.move(built.storage.full(f"{trained}/report.html"), built.storage.full(f"{trained}/ranker_report.html"))
    rows = {"embedder": "spectral", "dim": 8, "candidates_per_user": 100, "include_seen": False, "score_scale": 2.0}
    metrics = {"ranker": {"ndcg@10": 0.2}, "retrieval": {"ndcg@10": 0.1}}
    told = {"signature": "s", "trees": 20, "metrics": metrics, "trained_on": "t"}
    _tell(built, embedded, figures={"events": 1234})
    _tell(built, made, figures=rows, parents={"embeddings": embedded, "dataset": "d-tiny"})
    _tell(
        built,
        trained,
        figures={**told, "definition_hash": features.definition_hash()},
        parents={"candidates": made, "embeddings": embedded, "dataset": "d-tiny"},
    )
    return built


def _tell(version: Version, path: str, **fields: object) -> None:
    """Change a step's record."""
    name = f"{path}/_step.json"
    version.storage.write(name, json.dumps(json.loads(version.storage.read(name)) | fields).encode())


def _again(version: Version, step: str, **fields: object) -> str:
    """A copy of the step's try that ended later."""
    path = version.latest(step).path
    copy = f"{path.rsplit('-', 1)[0]}-{'0' * 8}"
    shutil.copytree(version.storage.full(path), version.storage.full(copy))
    _tell(version, copy, completed_at=LATER.isoformat(), **fields)
    return copy


def test_a_sealed_manifest_names_every_part_with_digests_counts_and_parents(version: Version) -> None:
    sealed = publish(version, actor="test")
    assert version.state() is State.STAGED and sealed == version.manifest()
    assert set(sealed.parts) == {
        tables.CANDIDATES,
        tables.ITEM_TABLE,
        tables.POPULAR,
        tables.USER_VECTORS,
        tables.ITEM_VECTORS,
        tables.RANKER,
        tables.RANKER_REPORT,
        tables.CHUNKS,
    }
    assert sealed.counts == {"users": 120, "users_embedded": 120, "items": 300, "events": 1234}
    assert sealed.generation_at_start == 4 and sealed.dataset == "d-tiny" and sealed.dim == 8
    assert set(sealed.parents) == {"embeddings", "candidates", "training"}
    for part in sealed.parts.values():
        for name, digest in part.files.items():
            assert version.storage.sha256(name) == digest and not name.endswith("_step.json")


def test_a_file_changed_after_sealing_is_found(version: Version) -> None:
    sealed = publish(version, actor="test")
    (name,) = sealed.parts[tables.RANKER].files
    version.storage.write(name, b"other")
    with pytest.raises(SnapshotCorrupt, match="digest"):
        tables.verify_part(version, sealed, tables.RANKER)


def test_sealing_again_changes_nothing_even_after_a_step_ran_again(version: Version) -> None:
    first = publish(version, actor="test")
    _again(version, "training")
    assert publish(version, actor="other") == first
    assert [record.actor for record in version.history()] == ["test"]


def test_a_try_that_died_between_manifest_and_state_is_completed_by_the_next(version: Version) -> None:
    sealed = publish(version, actor="test")
    version.storage.remove("states")
    assert publish(version, actor="retry").digest == sealed.digest
    assert version.state() is State.STAGED


def test_what_the_ranker_was_trained_for_is_sealed_not_what_ended_last(
    version: Version, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_for = version.latest("candidates").path
    late = _again(version, "candidates")
    sealed = publish(version, actor="test")
    assert sealed.parents["candidates"] == trained_for != late
    assert all(name.startswith(trained_for) for name in sealed.parts[tables.CANDIDATES].files)
    assert late in capsys.readouterr().err.replace("\n", "")


def test_the_newest_ranker_that_fits_is_taken_where_the_last_one_does_not(version: Version) -> None:
    good = version.latest("training").path
    _again(version, "training", parents={"candidates": "attempts/candidates-gone", "dataset": "d-tiny"})
    assert steps_of(version).trained.path == good


def test_steps_that_do_not_belong_together_are_refused_with_the_command(version: Version) -> None:
    parents = version.latest("training").parents
    _tell(version, version.latest("training").path, parents={**parents, "dataset": "d-other"})
    with pytest.raises(StepMissing, match=r"python -m spark_jobs\.training --application ranking --version v1"):
        publish(version, actor="test")
    assert not version.sealed and version.state() is State.BUILDING


@pytest.mark.parametrize("step", ["embeddings", "candidates", "training"])
def test_the_first_missing_step_is_the_one_that_is_named(version: Version, step: str) -> None:
    order = ["embeddings", "candidates", "training"]
    for name in order[order.index(step) :]:
        version.storage.remove(version.latest(name).path)
    with pytest.raises(StepMissing, match=f"python -m spark_jobs.{step}"):
        publish(version, actor="test")


def test_a_file_that_is_gone_is_named_with_the_step_that_makes_it(version: Version) -> None:
    version.storage.remove(f"{version.latest('candidates').path}/popular.parquet")
    with pytest.raises(StepMissing, match=r"popular.parquet is gone.*spark_jobs\.candidates"):
        publish(version, actor="test")


def test_a_ranker_of_other_features_is_refused(version: Version) -> None:
    path = version.latest("training").path
    _tell(version, path, figures={**version.latest("training").figures, "definition_hash": "0" * 16})
    with pytest.raises(StepMissing, match="feature definition 0000"):
        manifest_of(version, steps_of(version))


KILLED_PUBLISH = """
import os, signal, sys
from infra.snapshots.versions import SnapshotStore, Version
from spark_jobs.publish import publish
Version.seal = lambda *arguments, **names: os.kill(os.getpid(), signal.SIGKILL)
publish(SnapshotStore(sys.argv[1], "ranking").get("v1"), actor="killed")
"""


def test_a_publisher_killed_before_the_manifest_leaves_no_snapshot_and_the_next_one_seals_it(
    version: Version, tmp_path: Path
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_PUBLISH, str(tmp_path)], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert version.storage.names("chunks"), "all was written but the manifest"
    assert not version.sealed and version.state() is State.BUILDING
    with pytest.raises(SnapshotNotFound, match="no sealed manifest"):
        version.manifest()
    sealed = publish(version, actor="retry")
    assert version.state() is State.STAGED and len(version.storage.names("chunks")) == 1
    assert len(read_chunks(version, sealed)) == 2


@pytest.mark.parametrize("file_bytes", [1_000, 3_000], ids=["the digests", "the manifest"])
def test_with_the_disk_full_a_build_ends_with_one_clear_line_and_no_snapshot(
    version: Version, tmp_path: Path, file_bytes: int
) -> None:
    words = ("spark_jobs.publish", "--application", "ranking", "--version", version.version)
    variables = {"HEADGATE_STORE": str(tmp_path)}
    done = on_a_full_disk(*words, variables=variables, file_bytes=file_bytes)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("error: NotEnoughRoom: Nothing more can be written:"), done.stderr
    assert "Traceback" not in done.stderr
    assert not version.sealed and version.state() is State.BUILDING
    assert bool(version.storage.names("chunks")) == (file_bytes > 1_000)
    assert list(tmp_path.rglob("*.draft")) == []
    assert on_a_full_disk(*words, variables=variables, file_bytes=None).returncode == 0
    assert [record.state for record in version.history()] == [State.STAGED]


def test_publishers_at_the_same_moment_seal_one_manifest(version: Version) -> None:
    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(lambda actor: publish(version, actor=str(actor)), range(4)))
    assert {manifest.digest for manifest in sealed} == {version.manifest().digest}
    assert [record.state for record in version.history()] == [State.STAGED]
    read_chunks(version, version.manifest())


def test_the_scorers_that_the_step_tells_of_are_sealed_with_the_network_s_file(version: Version) -> None:
    stages = {name: asdict(stage) for name, stage in tiny_stages().items()}
    trained = version.latest("training")
    _tell(version, trained.path, figures={**trained.figures, "stages": stages})
    sealed = publish(version, actor="test")
    assert sealed.stages == tiny_stages() and version.manifest().stages == tiny_stages()
    (name,) = sealed.parts[tables.NETWORK].files
    assert name.endswith("network.onnx") and sealed.parts[tables.NETWORK].rows == 1


def test_a_step_that_judged_no_scorers_is_sealed_without_them(version: Version) -> None:
    sealed = publish(version, actor="test")
    assert sealed.stages == {} and tables.NETWORK not in sealed.parts
