"""Where a build's events come from: named data is looked at before anything starts, and a half-made world is never used."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.config.settings import Settings
from infra.contracts.errors import InvalidRequest, OperatorError
from infra.local import source
from infra.local.source import SampleWorld, Source, own_source


def test_a_relative_path_becomes_absolute_for_it_is_read_by_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    assert own_source("events.csv").location == str(tmp_path / "events.csv")
    assert own_source("*.csv").location == str(tmp_path / "*.csv")


def test_a_url_is_passed_as_it_is() -> None:
    assert own_source("s3://bucket/events").form() == {"source": "s3://bucket/events"}


def test_a_path_that_is_not_there_is_told_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"There is no .*nothing.*make demo DATA=path"):
        own_source(str(tmp_path / "nothing"))


def test_what_is_not_given_stays_at_the_settings() -> None:
    assert Source("/a", "csv", "user=u").form() == {"source": "/a", "format": "csv", "mapping": "user=u"}
    assert Source("/a").form() == {"source": "/a"}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleWorld:
    for name, value in (("SAMPLE_USERS", 30), ("SAMPLE_ITEMS", 40), ("SAMPLE_EVENTS", 300)):
        monkeypatch.setattr(source, name, value)
    return SampleWorld(Settings(home=tmp_path))


def test_the_sample_world_is_made_once_and_kept(small: SampleWorld) -> None:
    with small as world:
        made = world.wait()
    folder = Path(made.location)
    assert made.format == "world" and (folder / "world.json").exists()
    before = (folder / "world.json").stat().st_mtime_ns
    with small as world:
        assert world.wait() == made
    assert (folder / "world.json").stat().st_mtime_ns == before


def test_an_interrupted_world_is_not_taken_for_one(small: SampleWorld) -> None:
    folder = Path(small.source.location)
    with small:
        pass  # left before it was waited for
    assert not folder.exists()
    with small as world:
        world.wait()
    assert (folder / "world.json").exists()


def test_a_world_that_cannot_be_made_is_told(small: SampleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SAMPLE_USERS", 0)
    with pytest.raises(OperatorError, match=r"could not be made: .*users is 0.*world\.log"), small as world:
        world.wait()
