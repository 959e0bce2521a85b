"""source: where a build's events come from: the user's own data, the setting, or the sample world, made once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.config import console
from infra.config.settings import CHECKOUT, Settings
from infra.contracts.errors import InvalidRequest, OperatorError

SAMPLE_USERS, SAMPLE_ITEMS, SAMPLE_EVENTS = 22_500, 20_000, 1_000_000
"""One user in ten never comes, so that a little over 20,000 get a list."""
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Source:
    """Fields of the refresh form. `location` is absolute, or a URL."""

    location: str
    format: str = ""
    mapping: str = ""

    def form(self) -> dict[str, object]:
        """What is said to Airflow; what stays at the settings is left out."""
        fields = {"source": self.location, "format": self.format, "mapping": self.mapping}
        return {name: value for name, value in fields.items() if value}


def own_source(data: str, *, source_format: str = "", mapping: str = "") -> Source:
    """The user's own data. Raises InvalidRequest where a path is named that is not there, before anything is started."""
    if "://" in data:
        return Source(data, source_format, mapping)
    path = Path(data).expanduser().absolute()
    if not path.exists() and not _GLOB & set(data):
        raise InvalidRequest(f"There is no {path}.", mend="Name a file, a folder or an fsspec URL: make demo DATA=path")
    return Source(str(path), source_format, mapping)


class SampleWorld:
    """The generated world of the demo, under <home>/sample. Made by a process of its own, beside other work."""

    def __init__(self, chosen: Settings) -> None:
        self._folder = chosen.home.resolve() / "sample" / f"world-{SAMPLE_USERS}x{SAMPLE_ITEMS}-{SAMPLE_EVENTS}"
        self._log = chosen.home.resolve() / "log" / "world.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def source(self) -> Source:
        """For the refresh, once it is there."""
        return Source(str(self._folder), "world")

    def __enter__(self) -> Self:
        """Begin to make it, where it is not there."""
        if not self._folder.exists():
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            sizes = {"users": SAMPLE_USERS, "items": SAMPLE_ITEMS, "events": SAMPLE_EVENTS, "out": self._unfinished}
            words = [f"--{name}={value}" for name, value in sizes.items()]
            console.say(
                f"making a sample world: {SAMPLE_USERS:,} users, {SAMPLE_ITEMS:,} items, {SAMPLE_EVENTS:,} events"
            )
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "infra.local.world", "generate", *words],
                    cwd=CHECKOUT,
                    stdout=log,
                    stderr=log,
                )
        return self

    def wait(self) -> Source:
        """Until it is there. Raises OperatorError where it could not be made."""
        if self._process is not None:
            if self._process.wait() != 0:
                said = self._log.read_text(errors="replace").strip().splitlines()
                raise OperatorError(
                    f"The sample world could not be made: {said[-1] if said else '?'}", mend=f"See {self._log}"
                )
            self._unfinished.rename(self._folder)
            self._process = None
        return self.source

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """An unfinished one is given up."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    @property
    def _unfinished(self) -> Path:
        return self._folder.with_name(f".{self._folder.name}.unfinished")
