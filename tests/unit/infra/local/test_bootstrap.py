"""Bootstrap: installs once, repairs what was interrupted, refuses with a mend; on a real virtual environment without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.local import bootstrap
from infra.local.bootstrap import Installation, Refused, main, requirement, suitable_python, uv_environment

_BACKEND = """
import zipfile
_WHEEL = "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
def get_requires_for_build_editable(settings=None): return []
def build_editable(folder, settings=None, metadata=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", _WHEEL)
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an empty lock that builds itself."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "requirements.lock").write_text("# nothing\n")
    (folder / "backend.py").write_text(_BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1.0"\n'
    )
    return folder


def imports(project: Path) -> bool:
    python = project / ".venv/bin/python"
    return subprocess.run([str(python), "-c", "import tiny"], capture_output=True, check=False).returncode == 0


def test_it_installs_once_and_begins_anew_after_an_interruption(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(project) == 0
    installation = Installation(project)
    assert installation.complete() and imports(project)
    capsys.readouterr()
    assert main(project) == 0
    assert capsys.readouterr().err == "", "the second time there is nothing to do"

    (project / ".venv/left-over").touch()
    installation.stamp.unlink()
    installation.begun.touch()  # as a power cut leaves it
    assert not installation.complete()
    assert main(project) == 0
    assert installation.complete() and imports(project) and not (project / ".venv/left-over").exists()


def test_another_lock_declaration_or_folder_is_another_installation(project: Path) -> None:
    installation = Installation(project)
    before = installation.wanted()
    with (project / "requirements.lock").open("a") as lock:
        lock.write("# more\n")
    after = installation.wanted()
    moved = project.parent / "moved"
    shutil.copytree(project, moved)
    assert len({before, after, Installation(moved).wanted()}) == 3


def test_a_stamp_without_a_python_is_not_complete(project: Path) -> None:
    installation = Installation(project)
    installation.venv.mkdir()
    installation.stamp.write_text(installation.wanted())
    assert not installation.complete()


def test_a_full_disk_is_refused_before_anything_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000_000))
    assert main(project) == 1
    assert "1.0 GB free; wanted 3 GB. Make room" in capsys.readouterr().err
    assert not (project / ".venv").exists()


def test_an_unsuitable_python_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bootstrap, "TOO_NEW", (3, 11))
    with pytest.raises(
        Refused, match=r"python.* is 3\.\d+.*wanted 3\.11 or later, before 3\.11\. Run: apt-get install"
    ):
        suitable_python()


def test_this_python_is_taken_first() -> None:
    assert suitable_python() == sys.executable


def test_one_packages_lines_are_taken_from_the_lock() -> None:
    wanted = "uv==0.1 ; python_version > '3' \\\n    --hash=sha256:3\n"
    lock = f"aa==1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n{wanted}uvicorn==2 \\\n    --hash=sha256:4\n"
    assert requirement("uv", lock) == wanted
    assert requirement("absent", lock) == ""


def test_uv_is_told_what_pip_was_told_unless_it_was_told_itself() -> None:
    told = uv_environment({"PIP_INDEX_URL": "https://pip", "PIP_CERT": "/ca.crt", "SSL_CERT_FILE": "/own.crt"})
    assert told["UV_DEFAULT_INDEX"] == "https://pip" and told["SSL_CERT_FILE"] == "/own.crt"


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = f"import runpy, sys; runpy.run_path({bootstrap.__file__!r}, run_name='x')"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 0
