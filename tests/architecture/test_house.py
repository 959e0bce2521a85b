"""The house keeps its shape: imports point down, the ground floor is light, files say what they are, applications are whole."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from infra.catalog.applications import APPLICATIONS

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = ("infra", "spark_jobs", "validation", "bentos", "dags")
FILES = sorted(file for room in ROOMS for file in (CHECKOUT / room).rglob("*.py"))
HEAVY = ("pyspark", "redis", "airflow", "bentoml", "xgboost", "faiss", "pandas", "pyarrow", "great_expectations")


def test_imports_point_down_only() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_contracts_loads_no_heavy_package() -> None:
    modules = [
        "infra.contracts." + file.stem
        for file in (CHECKOUT / "infra/contracts").glob("*.py")
        if file.stem != "__init__"
    ]
    code = f"import sys, {', '.join(modules)}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_a_dag_loads_no_spark_and_no_model(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util, pathlib\n"
        "for file in sorted(pathlib.Path('dags').glob('snapshot_*.py')):\n"
        "    spec = importlib.util.spec_from_file_location(file.stem, file)\n"
        "    spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "heavy = ('pyspark', 'xgboost', 'faiss', 'bentoml', 'great_expectations', 'pandas')\n"
        "print([m for m in heavy if m in sys.modules])\n"
    )
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_a_file_says_in_its_first_line_what_lives_there_and_is_short(file: Path) -> None:
    text = file.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and ":" in docstring.splitlines()[0], "the first line names the file and says what lives there"
    assert len(text.splitlines()) <= 400, "over 400 lines: it would read better as two files"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_no_file_is_named_for_odds_and_ends(file: Path) -> None:
    assert file.stem not in {"utils", "util", "common", "helpers", "helper", "misc"}


def test_only_settings_reads_headgate_variables_from_the_environment() -> None:
    readers = []
    for file in FILES:
        text = file.read_text()
        for form in ('environ.get("HEADGATE_', 'environ["HEADGATE_', 'getenv("HEADGATE_'):
            if form in text and file.name not in {"settings.py", "bootstrap.py"}:
                readers.append(f"{file.relative_to(CHECKOUT)}: {form}")
    assert not readers


def missing_parts(name: str) -> list[str]:
    """What an application of that name still lacks to be whole."""
    spec = APPLICATIONS[name]  # type: ignore[index]
    missing = []
    for path in (f"infra/catalog/applications/{name}.py", f"validation/suites/{name}.py", f"bentos/{name}/service.py"):
        if not (CHECKOUT / path).exists():
            missing.append(path)
    module, _, service = spec.service.partition(":")
    try:
        if not hasattr(import_module(module), service):
            missing.append(f"{service} in {module}")
    except ImportError as error:
        missing.append(f"{module}: {error}")
    return missing


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_has_its_specification_suite_and_service(name: str) -> None:
    assert missing_parts(name) == []
