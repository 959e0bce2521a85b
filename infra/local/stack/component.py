"""component: what the stack knows of each of its parts: how it is started, where it listens, and whether it answers."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Protocol

from infra.local.stack.processes import Launch


class Component(Protocol):
    """One part of the stack."""

    name: str
    title: str
    port_setting: str
    ready_within_s: float
    stop_signal: signal.Signals
    grace_s: float

    @property
    def port(self) -> int | None:
        """Where it listens, which is looked at before anything is started; None: nowhere."""
        ...

    @property
    def url(self) -> str:
        """Where people or programs find it; empty where it listens nowhere."""
        ...

    def launch(self, *, java_home: Path | None) -> Launch:
        """How it is started now."""
        ...

    def problem(self) -> str:
        """Why it does not serve yet; empty once it does."""
        ...
