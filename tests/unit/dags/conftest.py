"""Airflow for the tests of dags/: imported as a library, so that it sets up no logging, no database and no folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

AS_LIBRARY = {
    "_AIRFLOW__AS_LIBRARY": "1",
    "AIRFLOW_HOME": "/nonexistent/airflow",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
}

if "airflow" not in sys.modules:
    before = {name: os.environ.get(name) for name in AS_LIBRARY}
    os.environ.update(AS_LIBRARY)
    import airflow.sdk  # noqa: F401 - for what importing it does

    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules `python -m` finds."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path
