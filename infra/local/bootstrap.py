"""bootstrap: from a clean checkout to a working .venv; standard library only, run by the system's own python3."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
OLDEST, TOO_NEW = (3, 11), (3, 13)
ROOM_NEEDED_BYTES = 3_000_000_000
"""1.3 GB of packages, as much again while they are downloaded and unpacked."""

_PYTHONS = ("python3", "python3.12", "python3.11")
_PROBE = "import ctypes, sqlite3, ssl, sys, venv; print(*sys.version_info[:2])"
_WHEEL_PACKAGE = "python3-pip-whl"
_ATTEMPTS = 3
_LINE_EVERY_S = 15.0


class Refused(Exception):
    """What is wrong, and the mend, in one line."""


class Installation:
    """A virtual environment with everything of a lock file, and the project itself.

    `.installed` in it holds the digest of what was installed and is written last; `.installing` says that an installation began.
    """

    def __init__(self, project: Path) -> None:
        self.project = project
        self.venv = project / ".venv"
        self.lock = project / "requirements.lock"
        self.python = self.venv / "bin" / "python"
        self.stamp = self.venv / ".installed"
        self.begun = self.venv / ".installing"

    def wanted(self) -> str:
        """The digest of the lock, of the project's declaration, and of the folder, for an environment cannot be moved."""
        digest = hashlib.sha256(f"{self.project}\0".encode())
        for path in (self.lock, self.project / "pyproject.toml"):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def complete(self) -> bool:
        """Whether exactly this has been installed to the end."""
        try:
            return self.stamp.read_text().strip() == self.wanted() and self.python.exists()
        except OSError:
            return False

    def install(self, base: str) -> None:
        """base: the Python that the environment is made of. An environment whose installation was interrupted is made anew."""
        if self.begun.exists() or not _runs(self.python):
            shutil.rmtree(self.venv, ignore_errors=True)
        if not self.python.exists():
            say(f"making {self.venv} from {base}")
            _run([base, "-m", "venv", "--without-pip", str(self.venv)])
        self.stamp.unlink(missing_ok=True)
        self.begun.touch()
        self._make_pip()
        self._install_lock()
        project = ["--no-deps", "--no-build-isolation", "--editable", str(self.project)]
        _run([*self._pip(), "install", *project], cwd=self.project)
        self.stamp.write_text(self.wanted() + "\n")
        self.begun.unlink()

    def _make_pip(self) -> None:
        """Python's own copy of pip; a Debian Python has none, but Debian has a package with it."""
        if _succeeds([*self._pip(), "--version"]) or _succeeds([str(self.python), "-m", "ensurepip", "--default-pip"]):
            return
        say(f"this Python has no pip: fetching Debian's {_WHEEL_PACKAGE}")
        mend = "Run: apt-get install python3-venv"
        with tempfile.TemporaryDirectory(dir=self.venv) as scratch:
            if not _succeeds(["apt-get", "download", _WHEEL_PACKAGE], cwd=Path(scratch)):
                raise Refused(f"This Python has no pip, and apt-get download {_WHEEL_PACKAGE} failed. {mend}")
            for package in Path(scratch).glob("*.deb"):
                _run(["dpkg-deb", "-x", str(package), scratch])
            wheel = next(Path(scratch).glob("usr/share/python-wheels/pip-*.whl"), None)
            if wheel is None:
                raise Refused(f"Debian's {_WHEEL_PACKAGE} holds no pip. {mend}")
            _run([str(self.python), f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)])

    def _install_lock(self) -> None:
        """By uv, itself from the lock, which takes half a minute where pip takes minutes; by pip where uv will not do."""
        words = ["--no-deps", "--require-hashes", "-r", str(self.lock)]
        say(f"installing {self._count()} packages into {self.venv}")
        with tempfile.TemporaryDirectory(dir=self.venv) as scratch:
            only_uv = Path(scratch) / "uv.lock"
            only_uv.write_text(requirement("uv", self.lock.read_text()))
            command = [*self._pip(), "install", "--no-deps", "--require-hashes", "-r", str(only_uv)]
            have_uv = only_uv.stat().st_size > 0 and _succeeds(command)
        if have_uv:
            command = [str(self.venv / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(self.python), *words]
            if _succeeds(command, watched="uv", environment=uv_environment(dict(os.environ))):
                return
            say("uv could not; trying with pip")
        for attempt in range(1, _ATTEMPTS + 1):
            if _succeeds([*self._pip(), "install", *words], watched="pip"):
                return
            say(f"pip could not (attempt {attempt} of {_ATTEMPTS})")
        raise Refused(
            "The packages of requirements.lock could not be installed. Is the package index reached? Then: make install"
        )

    def _pip(self) -> list[str]:
        return [str(self.python), "-m", "pip", "--quiet", "--disable-pip-version-check"]

    def _count(self) -> int:
        return sum("==" in line for line in self.lock.read_text().splitlines())


def requirement(name: str, lock: str) -> str:
    """One package's lines of a lock, with its hashes; empty where the lock does not have it."""
    lines = iter(lock.splitlines())
    for line in lines:
        if line.startswith(f"{name}=="):
            found = [line]
            while found[-1].endswith("\\"):
                found.append(next(lines))
            return "\n".join(found) + "\n"
    return ""


def uv_environment(environment: dict[str, str]) -> dict[str, str]:
    """What pip was told of indexes and certificates, in uv's words, where uv was not told itself."""
    names = {
        "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
        "PIP_EXTRA_INDEX_URL": "UV_INDEX",
        "PIP_FIND_LINKS": "UV_FIND_LINKS",
        "PIP_CERT": "SSL_CERT_FILE",
        "PIP_DEFAULT_TIMEOUT": "UV_HTTP_TIMEOUT",
    }
    told = {uv: environment[pip] for pip, uv in names.items() if environment.get(pip) and uv not in environment}
    return {**environment, **told, "UV_LINK_MODE": environment.get("UV_LINK_MODE", "hardlink"), "UV_NO_CONFIG": "1"}


def suitable_python() -> str:
    """A Python of a version that every package supports: this one, or another on PATH. Raises Refused."""
    seen = []
    for name in (sys.executable, *_PYTHONS):
        found = shutil.which(name)
        version = _version(found) if found else None
        if found and version and OLDEST <= version < TOO_NEW:
            return found
        if found:
            seen.append(f"{found} is {'.'.join(map(str, version)) if version else 'incomplete'}")
    wanted = f"wanted {'.'.join(map(str, OLDEST))} or later, before {'.'.join(map(str, TOO_NEW))}"
    raise Refused(
        f"No Python will do ({'; '.join(dict.fromkeys(seen)) or 'none found'}); {wanted}. Run: apt-get install python3.11"
    )


def require_room(folder: Path) -> None:
    """Raise Refused where the disk has less than an installation takes."""
    free = shutil.disk_usage(folder).free
    if free < ROOM_NEEDED_BYTES:
        wanted = f"{ROOM_NEEDED_BYTES / 1e9:.0f} GB"
        raise Refused(f"{folder} has {free / 1e9:.1f} GB free; wanted {wanted}. Make room, or clone to a larger disk.")


def say(text: str) -> None:
    """A plain line for whoever watches."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _version(python: str) -> tuple[int, int] | None:
    done = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return (int(words[0]), int(words[1])) if done.returncode == 0 and len(words) == 2 else None


def _runs(python: Path) -> bool:
    version = _version(str(python)) if python.exists() else None
    return version is not None and OLDEST <= version < TOO_NEW


def _succeeds(
    command: list[str], *, cwd: Path | None = None, watched: str = "", environment: dict[str, str] | None = None
) -> bool:
    """Run a command whose failure has an answer. watched: its name, for a line now and then while it works."""
    quiet = None if watched else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=quiet, stderr=quiet
        )
    except OSError:
        return False
    began = time.monotonic()
    try:
        while True:
            try:
                return process.wait(timeout=_LINE_EVERY_S) == 0
            except subprocess.TimeoutExpired:
                if watched:
                    say(f"{watched} is at work, {time.monotonic() - began:.0f} s")
    finally:
        process.kill()
        process.wait()


def _run(command: list[str], *, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Refused(
            f"{' '.join(command)} failed: {said[-1] if said else f'exit code {done.returncode}'}. Then: make install"
        )


def main(project: Path = CHECKOUT) -> int:
    """Install what is missing; nothing where nothing is. One installation at a time in a checkout."""
    installation = Installation(project)
    try:
        with installation.lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if installation.complete():
                installation.stamp.touch()
                return 0
            began = time.monotonic()
            require_room(project)
            installation.install(suitable_python())
            say(f"installed in {time.monotonic() - began:.0f} s")
    except Refused as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; make install begins again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
