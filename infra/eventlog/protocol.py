"""protocol: what a log of events does, and a log of lists shown, whatever keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.contracts.events import Event
from infra.contracts.exposures import Exposure


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an event stands in the log. duplicate: this event id was taken before, at this position; nothing was written."""

    position: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """An event as it is read back."""

    position: str
    event: Event


class EventLog(Protocol):
    """Ordered, durable, appended to by many and read by position."""

    async def append(self, events: Sequence[Event]) -> list[Appended]:
        """Take all events or none. Raises DependencyUnavailable; then nothing was written."""

    async def read(self, *, after: str, count: int) -> list[Logged]:
        """Up to `count` events after a position ("0-0": from the beginning). Raises InvalidRequest, DependencyUnavailable."""


@dataclass(frozen=True, slots=True)
class LoggedExposure:
    """A list as it is read back."""

    position: str
    exposure: Exposure


class ExposureLog(Protocol):
    """Ordered, appended to by many and read by position; the oldest lists go first."""

    async def append(self, exposures: Sequence[Exposure]) -> None:
        """Take all lists or none. Raises DependencyUnavailable; then none was taken, unless the answer alone was lost."""

    async def read(self, *, after: str, count: int) -> list[LoggedExposure]:
        """Up to `count` lists after a position ("0-0": from the beginning). Raises InvalidRequest, DependencyUnavailable."""
