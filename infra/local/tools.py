"""tools: the programs that headgate needs and does not bring: Redis, Java, Chromium; found, or unpacked from Debian's packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from infra.config.settings import Settings, settings
from infra.contracts.errors import MissingTool
from infra.local import debian

REDIS_NEEDED = 7
"""The flip's script is flagged `allow-oom`, which Redis has since 7."""

JAVA_NEEDED = 17
"""Spark 4 needs it."""

_JRE_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless", "openjdk-25-jre-headless")
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_REDIS_MEND = f"Install Redis {REDIS_NEEDED} or newer, or set HEADGATE_REDIS_URL to one that runs."
_JAVA_MEND = f"Install a headless JRE {JAVA_NEEDED} or newer, or point JAVA_HOME to one."


def tools_folder(chosen: Settings | None = None) -> Path:
    """Where unpacked programs lie, of these settings or of the process's."""
    return (chosen or settings()).home.resolve() / "tools"


def find_redis() -> list[str]:
    """The words that start a redis-server >= 7: the one on PATH, else Debian's, unpacked once. Raises MissingTool."""
    on_path, seen = shutil.which("redis-server"), ""
    if on_path is not None:
        seen = redis_problem([on_path])
        if not seen:
            return [on_path]
    folder = tools_folder() / "redis"
    if redis_problem(_unpacked_redis(folder)):
        mend = f"{seen} {_REDIS_MEND}".strip()
        debian.unpack(
            ["redis-server"],
            into=folder,
            works=lambda root: redis_problem(_unpacked_redis(root)),
            what=f"redis-server {REDIS_NEEDED} or newer",
            mend=mend,
        )
    return _unpacked_redis(folder)


def redis_problem(command: list[str]) -> str:
    """Why that redis-server will not do; empty where it will."""
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[-1]} does not run: {error}."
    found = re.search(r"v=(\d+)\.(\d+)", said)
    if found is None:
        return f"{command[-1]} does not say its version."
    return "" if int(found[1]) >= REDIS_NEEDED else f"{command[-1]} is version {found[1]}.{found[2]}."


def _unpacked_redis(root: Path) -> list[str]:
    libraries = ":".join(str(folder) for folder in _library_folders(root))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(root / "usr/bin/redis-server")]


def find_java() -> Path:
    """The home of a Java >= 17: JAVA_HOME, else PATH, else Debian's headless JRE, unpacked once. Raises MissingTool.

    A Java that the user named and that will not do is an error, never replaced in silence.
    """
    named = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    if named:
        _require_java(Path(named, "bin", "java"), where="JAVA_HOME")
        return Path(named)
    if on_path is not None:
        java = Path(on_path)
        _require_java(java, where="PATH")
        return java.resolve().parents[1]
    folder = tools_folder() / "jre"
    unpacked = _unpacked_java(folder)
    if unpacked is None or java_problem(unpacked):
        what = f"Java {JAVA_NEEDED} or newer"
        debian.unpack(_JRE_PACKAGES, into=folder, works=_prepare_java, what=what, mend=_JAVA_MEND)
        unpacked = _unpacked_java(folder)
    if unpacked is None:
        raise MissingTool(f"{folder} holds no bin/java.", mend=_JAVA_MEND)
    return unpacked.parents[1]


def java_problem(java: Path) -> str:
    """Why that Java will not do; empty where it will."""
    try:
        said = subprocess.run([str(java), "-version"], capture_output=True, text=True, check=True, timeout=60).stderr
    except (OSError, subprocess.SubprocessError) as error:
        return f"{java} does not run: {error}."
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None:
        return f"{java} does not say its version."
    return "" if int(found[1]) >= JAVA_NEEDED else f"{java} is Java {found[1]}."


def _require_java(java: Path, *, where: str) -> None:
    problem = java_problem(java)
    if problem:
        raise MissingTool(f"The Java of {where} will not do: {problem} Wanted {JAVA_NEEDED} or newer.", mend=_JAVA_MEND)


def _unpacked_java(root: Path) -> Path | None:
    found = sorted(root.glob("usr/lib/jvm/*/bin/java"))
    return found[-1] if found else None


def _prepare_java(root: Path) -> str:
    """Put the libraries that came along where Java's own lie, for it looks there. Returns what is wrong, or nothing."""
    java = _unpacked_java(root)
    if java is None:
        return "the packages hold no bin/java"
    own = java.parents[1] / "lib"
    for folder in _library_folders(root):
        for library in folder.glob("*.so*"):
            link = own / library.name
            if not link.exists():
                link.symlink_to(os.path.relpath(library, own))
    return java_problem(java)


def _library_folders(root: Path) -> list[Path]:
    patterns = (f"usr/lib/*-{sys.platform}-gnu*", f"lib/*-{sys.platform}-gnu*", "usr/lib/*/redis")
    return [folder for pattern in patterns for folder in sorted(root.glob(pattern)) if folder.is_dir()]


def find_chromium() -> Path:
    """The browser for the page's tests. Raises MissingTool."""
    for name in _CHROMIUMS:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise MissingTool("There is no Chromium on PATH.", mend="Run: apt-get install chromium")
