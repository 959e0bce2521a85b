"""component: what the stack knows of each of its parts: how it is started, where it listens, and whether it answers."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Protocol

from infra.local.stack.processes import Launch


class Component(Protocol):
    """One part of the stack. Its ports are looked at before anything is started."""

    name: str
    title: str
    port: int
    port_setting: str
    ready_within_s: float
    stop_signal: signal.Signals
    grace_s: float

    @property
    def url(self) -> str:
        """Where people or programs find it."""
        ...

    def launch(self, *, java_home: Path | None) -> Launch:
        """How it is started now."""
        ...

    def problem(self) -> str:
        """Why it does not serve yet; empty once it does."""
        ...
