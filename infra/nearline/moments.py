"""moments: a moment as an operator types it on a command line."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.contracts.errors import InvalidRequest


def moment(said: str, *, flag: str) -> datetime:
    """`2026-05-01T12:00:00Z`, aware UTC. Raises InvalidRequest naming the flag."""
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


def microseconds(of: datetime) -> int:
    """Since 1970."""
    return int(of.timestamp()) * 1_000_000 + of.microsecond
