"""Documents: the generated pages say all that the code says, and a difference is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.config.settings import CHECKOUT, Settings
from infra.contracts.errors import OperatorError
from infra.local.describe import describe
from infra.local.documents import command_modules, settings_page, update


def test_a_page_that_differs_is_refused_by_the_check_and_mended_without_it(tmp_path: Path) -> None:
    pages = {tmp_path / "docs/a.md": "as it should be\n", tmp_path / "docs/b.md": "another\n"}
    with pytest.raises(OperatorError, match=r"docs/a\.md, docs/b\.md.*Run: make docs"):
        update(pages, checkout=tmp_path, check=True)
    assert not (tmp_path / "docs").exists(), "a check writes nothing"
    update(pages, checkout=tmp_path, check=False)
    update(pages, checkout=tmp_path, check=True)
    (tmp_path / "docs/b.md").write_text("edited by hand\n")
    with pytest.raises(OperatorError, match=r"now: docs/b\.md\."):
        update(pages, checkout=tmp_path, check=True)


def test_every_setting_has_a_row_with_its_meaning() -> None:
    rows = {
        line.split("|")[1].strip(): line for line in settings_page().splitlines() if line.startswith("| `HEADGATE_")
    }
    assert set(rows) == {f"`HEADGATE_{name.upper()}`" for name in Settings.model_fields}
    assert all(line.split("|")[-2].strip() for line in rows.values()), "a setting without a description"
    assert str(CHECKOUT) not in settings_page(), "where this checkout lies is nobody's business"


def test_every_command_that_a_dag_or_the_makefile_runs_is_described() -> None:
    modules = {module.removesuffix(".__main__") for module in command_modules(CHECKOUT)}
    assert {
        "infra.local",
        "infra.snapshots",
        "spark_jobs.ingest",
        "spark_jobs.embeddings",
        "validation.gate",
    } <= modules


def test_a_command_line_is_described_with_its_options() -> None:
    commands = {command["name"]: command for command in describe("infra.local.__main__")}
    assert {"up", "down", "status", "login", "snapshot", "demo", "clean"} <= set(commands)
    options = commands["demo"]["options"]
    assert isinstance(options, list)
    assert [option["flag"] for option in options] == ["--data", "--format", "--map"]
