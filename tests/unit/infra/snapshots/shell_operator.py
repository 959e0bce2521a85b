"""shell_operator: somebody at a shell: types commands of infra.snapshots, and sees what each of them left behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from infra.config import console
from infra.config.settings import settings
from infra.contracts.snapshots import State
from infra.snapshots import __main__ as commands
from infra.snapshots.versions import Version
from tests.fixtures.tiny_snapshot import build_tiny_snapshot


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, object]:
        fields: dict[str, object] = json.loads(self.stdout.splitlines()[-1])
        return fields

    @property
    def error(self) -> str:
        """The one line of the error; everything else on stderr was said before it."""
        assert self.code == 1, self
        assert "Traceback" not in self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1 and self.stderr.splitlines()[-1] == lines[0]
        return lines[0]


class Operator:
    """Somebody at a shell, in one process with the test."""

    def __init__(
        self, store: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.store = store
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.set(HEADGATE_STORE=str(store), HEADGATE_REDIS_URL=url, COLUMNS="80")

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        settings.cache_clear()

    def __call__(self, *words: str) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["infra.snapshots", *words])
        self._capsys.readouterr()
        code = 0
        try:
            console.run(commands.app)
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *self._capsys.readouterr())

    def build(self, *, generation: int = 0, state: State = State.VALIDATED) -> Version:
        version = build_tiny_snapshot(str(self.store), generation=generation)
        if state is not State.STAGED:
            version.record(state, actor="gate", reason="17 checks passed")
        return version

    def live(self, count: int) -> None:
        """That many versions, built and put live one after the other."""
        for number in range(count):
            name = self.build(generation=number).version
            assert self("load", "--version", name).code == 0
            assert self("promote", "--version", name, "--reason", f"build {number + 1}").code == 0
