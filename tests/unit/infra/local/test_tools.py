"""Tools: found in the order that is promised; a wrong one is named, never replaced in silence; unpacked ones appear whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.config.settings import settings
from infra.contracts.errors import MissingTool
from infra.local import tools


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is all of PATH, with no JAVA_HOME and a home of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env"):
        (folder / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    settings.cache_clear()
    yield folder
    settings.cache_clear()


def program(where: Path, *, says: str, code: int = 0) -> Path:
    """A program that prints a line on both streams."""
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(f"#!/bin/sh\necho '{says}'\necho '{says}' >&2\nexit {code}\n")
    where.chmod(0o755)
    return where


def java(where: Path, version: str) -> Path:
    return program(where, says=f'openjdk version "{version}" 2025-04-15')


def test_java_home_comes_before_path(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(path / "java", "21.0.1")
    java(tmp_path / "jdk/bin/java", "17.0.15")
    assert tools.find_java() == path.parent
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert tools.find_java() == tmp_path / "jdk"


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_202"])
def test_a_java_that_is_too_old_is_an_error_that_names_it(path: Path, version: str) -> None:
    java(path / "java", version)
    major = "8" if version.startswith("1.") else "11"
    with pytest.raises(MissingTool, match=rf"Java of PATH .*is Java {major}\. Wanted 17 or newer\. Install"):
        tools.find_java()


def test_a_java_home_that_holds_none_is_an_error_though_path_has_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java(path / "java", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nothing"))
    with pytest.raises(MissingTool, match=r"Java of JAVA_HOME will not do: .*does not run"):
        tools.find_java()


@pytest.mark.usefixtures("path")
def test_no_java_and_no_debian_is_an_error_with_the_mend() -> None:
    with pytest.raises(MissingTool, match=r"no apt-get.*Install a headless JRE 17 or newer, or point JAVA_HOME"):
        tools.find_java()


def test_an_unpacked_java_is_used_again(path: Path) -> None:
    unpacked = java(tools.tools_folder() / "jre/usr/lib/jvm/java-17/bin/java", "17.0.9")
    assert tools.find_java() == unpacked.parents[1]


def test_redis_on_path_is_taken_where_it_is_new_enough(path: Path) -> None:
    found = program(path / "redis-server", says="Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    assert tools.find_redis() == [str(found)]


def test_an_old_redis_and_no_debian_is_an_error_that_names_it(path: Path) -> None:
    program(path / "redis-server", says="Redis server v=6.2.14 sha=00000000:0")
    with pytest.raises(MissingTool, match=r"redis-server is version 6\.2\. Install Redis 7 .*HEADGATE_REDIS_URL"):
        tools.find_redis()


@pytest.mark.usefixtures("path")
def test_no_chromium_is_an_error_with_the_mend() -> None:
    with pytest.raises(MissingTool, match="apt-get install chromium"):
        tools.find_chromium()


def fake_debian(path: Path, *, package_root: Path | None) -> None:
    """An apt-get that has one package, or none, and a dpkg-deb that unpacks a folder."""
    for name in ("cp", "touch"):
        (path / name).symlink_to(shutil.which(name, path=os.defpath) or "")
    policy = "Candidate: 7.0" if package_root else ""
    program(path / "apt-cache", says=policy)
    program(path / "apt-get", says="")
    if package_root:
        script = '#!/bin/sh\ncase "$*" in *--simulate*) echo "Inst liblzf1 (3.6-3 Debian)"; echo "Inst libc6 [2.36] (2.37)";;\n'
        (path / "apt-get").write_text(script + "*download*) touch redis.deb;; esac\n")
    (path / "dpkg-deb").write_text(f'#!/bin/sh\ncp -r {package_root}/. "$3"\n')
    (path / "dpkg-deb").chmod(0o755)


def test_a_debian_package_is_unpacked_once_with_its_links_kept_inside(path: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    program(package / "usr/bin/redis-server", says="Redis server v=7.0.15")
    (package / "etc/redis").mkdir(parents=True)
    (package / "usr/settings").symlink_to("/etc/redis")
    fake_debian(path, package_root=package)
    command = tools.find_redis()
    folder = tools.tools_folder() / "redis"
    assert command[-1] == str(folder / "usr/bin/redis-server")
    assert (folder / "usr/settings").resolve() == (folder / "etc/redis").resolve()
    assert [path.name for path in folder.parent.iterdir()] == ["redis"], "nothing unfinished is left"
    (path / "apt-get").unlink()
    assert tools.find_redis() == command


def test_a_package_that_does_not_run_leaves_nothing_that_looks_finished(path: Path, tmp_path: Path) -> None:
    program(tmp_path / "package/usr/bin/redis-server", says="error while loading shared libraries", code=127)
    fake_debian(path, package_root=tmp_path / "package")
    with pytest.raises(MissingTool, match=r"could not be had from apt-get: .*redis-server does not run"):
        tools.find_redis()
    assert list(tools.tools_folder().iterdir()) == []


def test_a_debian_without_the_package_says_so(path: Path) -> None:
    fake_debian(path, package_root=None)
    with pytest.raises(MissingTool, match="could not be had from apt-get: no such package"):
        tools.find_redis()
