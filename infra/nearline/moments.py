"""moments: a moment as an operator types it."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.contracts.errors import InvalidRequest


def moment_of(said: str) -> datetime:
    """`2026-05-01T12:00:00Z`, aware UTC; the present where nothing is said. Raises InvalidRequest."""
    if not said:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise InvalidRequest(f"--now is {said!r}; wanted a moment with a zone: 2026-05-01T12:00:00Z.")
    return moment.astimezone(UTC)


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
