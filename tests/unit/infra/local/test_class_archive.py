"""The class archive: named for its Java and Spark, appears whole or not at all, and nothing hangs on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.class_archive import ClassArchive


def test_another_java_has_another_archive(tmp_path: Path) -> None:
    first, second = (ClassArchive(tmp_path, java_home=tmp_path / name) for name in ("jdk-17", "jdk-21"))
    assert first.path != second.path and first.path.parent == tmp_path
    assert f"-XX:SharedArchiveFile={first.path}" in first.variables()["SPARK_SUBMIT_OPTS"]


def test_one_that_cannot_be_made_is_told_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ClassArchive(tmp_path, java_home=tmp_path / "no-java") as archive:
        archive.wait()
    assert "Spark will start more slowly" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with ClassArchive(tmp_path, java_home=tmp_path / "no-java"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_there_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = ClassArchive(tmp_path, java_home=tmp_path)
    made.path.write_text("classes")
    with ClassArchive(tmp_path, java_home=tmp_path) as archive:
        archive.wait()
    assert made.path.read_text() == "classes" and capsys.readouterr().err == ""
