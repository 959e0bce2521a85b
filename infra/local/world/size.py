"""size: how large a world is and when it happens; what world.json keeps and every part is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from infra.contracts.errors import InvalidRequest

DAY_US = 86_400_000_000
_MAX_DAYS = 3660


@dataclass(frozen=True, slots=True)
class WorldSize:
    """Two worlds of equal size and seed are equal to the byte (on one machine and one numpy)."""

    users: int
    items: int
    events: int
    seed: int
    days: int = 56
    start: datetime = datetime(2024, 4, 1, tzinfo=UTC)

    def __post_init__(self) -> None:
        for name, least in (("users", 1), ("items", 1), ("events", 0), ("seed", 0), ("days", 1)):
            value = getattr(self, name)
            if value < least:
                raise InvalidRequest(f"{name} is {value}; wanted {least} or more.")
        if self.days > _MAX_DAYS:
            raise InvalidRequest(f"days is {self.days}; wanted at most {_MAX_DAYS}.")
        for name in ("users", "items"):
            if getattr(self, name) >= 2**31 - 1:
                raise InvalidRequest(
                    f"{name} is {getattr(self, name)}; an index is an int32: wanted less than 2^31 - 1."
                )
        if self.start.tzinfo is None:
            raise InvalidRequest(f"start {self.start.isoformat()} has no zone; wanted aware UTC.")

    @property
    def start_us(self) -> int:
        """The first moment, in microseconds since 1970."""
        return round(self.start.timestamp()) * 1_000_000

    def rng(self, *stream: int) -> np.random.Generator:
        """An independent source of chance for one part of the world, the same on every call."""
        return np.random.default_rng([self.seed, *stream])


CATALOGUE_STREAM, PEOPLE_STREAM, TREND_STREAM, DAY_STREAM = range(1, 5)
"""The first number of each part's stream."""
