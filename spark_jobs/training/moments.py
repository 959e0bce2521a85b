"""moments: a moment as a command line takes it."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.contracts.errors import InvalidRequest


def moment(said: str, *, flag: str) -> datetime:
    """Aware UTC. Raises InvalidRequest."""
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        raise InvalidRequest(f"{flag} is {said!r}; wanted a moment with a zone: 2026-05-01T12:00:00Z.")
    return found.astimezone(UTC)


def moment_or_none(said: str, *, flag: str) -> datetime | None:
    """The same; None where nothing was said."""
    return moment(said, flag=flag) if said else None
