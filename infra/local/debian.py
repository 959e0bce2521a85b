"""debian: programs from Debian's or Ubuntu's own packages, unpacked into a folder: no root, nothing is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.config import console
from infra.contracts.errors import MissingTool

_NEW_PACKAGE = re.compile(r"^Inst (\S+) \(", re.MULTILINE)
"""A line of `apt-get install --simulate` about a package that is not installed; an upgrade shows the old version first."""

_TIMEOUT_S = 900.0


def unpack(packages: Sequence[str], *, into: Path, works: Callable[[Path], str], what: str, mend: str) -> None:
    """Download the first of `packages` that exists, with what this machine lacks for it, and unpack it as the folder `into`.

    works: is given the unpacked folder; says what is wrong, or nothing. The folder appears under its name only when it works, so
    an interrupted download leaves nothing that looks finished. Raises MissingTool.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise MissingTool(
            f"{what} is not there, and cannot be unpacked: this is no Debian or Ubuntu (no apt-get).", mend=mend
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    apt, seen = _Apt(into.parent / "apt"), ""
    for own_lists in (
        False,
        True,
    ):  # the machine's package lists may be absent, or older than what the mirror still has
        if own_lists and not apt.update():
            continue
        for package in packages:
            wanted = apt.needed_for(package)
            if not wanted:
                continue
            with tempfile.TemporaryDirectory(prefix=f".{into.name}-", dir=into.parent) as scratch:
                seen = (
                    apt.download(wanted, into=Path(scratch)) or _extract(Path(scratch)) or works(Path(scratch, "root"))
                )
                if not seen:
                    shutil.rmtree(into, ignore_errors=True)
                    Path(scratch, "root").rename(into)
                    apt.remove()
                    console.say(f"unpacked {' '.join(wanted)} into {into}")
                    return
    apt.remove()
    raise MissingTool(
        f"{what} is not there, and could not be had from apt-get: {seen or 'no such package'}.", mend=mend
    )


class _Apt:
    """apt-get, first with the machine's package lists, after `update` with lists of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = ["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1"]

    def update(self) -> bool:
        """Fetch package lists into a folder of headgate's own. Some sources may fail; what counts is what is found then."""
        console.say("reading Debian's package lists")
        lists = self._folder / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (self._folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self._options += [
            *("-o", f"Dir::State::lists={lists}"),
            *("-o", f"Dir::Cache={self._folder / 'cache'}"),
        ]
        self._run("apt-get", "update", "-qq")
        return any(lists.glob("*Packages*"))

    def needed_for(self, package: str) -> list[str]:
        """The package and those of its dependencies that this machine lacks; empty where there is no such package."""
        if "Candidate: (none)" in (policy := self._run("apt-cache", "policy", package).stdout) or not policy.strip():
            return []
        plan = self._run("apt-get", "install", "--simulate", "--yes", "--no-install-recommends", package)
        return [package, *(name for name in _NEW_PACKAGE.findall(plan.stdout) if name != package)]

    def download(self, packages: Sequence[str], *, into: Path) -> str:
        """Put the packages' files into a folder. Returns what is wrong, or nothing."""
        console.say(f"downloading {' '.join(packages)}")
        done = self._run("apt-get", "download", *packages, cwd=into)
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        return (said[-1] if said else f"exit code {done.returncode}") if done.returncode else ""

    def remove(self) -> None:
        """Delete the lists of headgate's own."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(
            [program, *self._options, *words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )


def _extract(folder: Path) -> str:
    """Unpack every .deb of a folder into its `root`. Returns what is wrong, or nothing."""
    root = folder / "root"
    root.mkdir()
    for archive in sorted(folder.glob("*.deb")):
        done = subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip() or f"{archive.name} cannot be unpacked"
    _keep_links_inside(root)
    return ""


def _keep_links_inside(root: Path) -> None:
    """Packages link to absolute paths (a JRE's configuration lies in /etc): make those links relative to the folder."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            link = Path(folder, name)
            if not link.is_symlink():
                continue
            target = str(link.readlink())
            inside = root / target.lstrip("/")
            if target.startswith("/") and os.path.lexists(inside):
                link.unlink()
                link.symlink_to(os.path.relpath(inside, link.parent))
