"""dead_letters: events that were refused, and why, as one Redis stream; the oldest go first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self, cast

import orjson
import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable

KEPT = 10_000
MAX_PAYLOAD_BYTES = 1024
"""Of one letter; what is longer is cut."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """at: aware UTC. payload: the event as it came, JSON where it was any."""

    at: datetime
    reason: str
    payload: bytes

    @classmethod
    def of(cls, said: object, reason: str, *, at: datetime) -> Self:
        """Of a parsed event."""
        try:
            payload = orjson.dumps(said)
        except TypeError:
            payload = repr(said).encode(errors="replace")
        return cls(at, reason, payload)


class DeadLetters:
    """Keeps the newest; writing is one round trip."""

    def __init__(self, client: redis.asyncio.Redis, stream: str) -> None:
        self._client = client
        self._stream = stream

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Raises DependencyUnavailable; then some of them may be lost."""
        pipe = self._client.pipeline(transaction=False)
        for letter in letters:
            row: dict[str | bytes, str | bytes | int] = {
                "at_us": (letter.at - _EPOCH) // timedelta(microseconds=1),
                "reason": letter.reason.encode(errors="replace")[:MAX_PAYLOAD_BYTES],
                "payload": letter.payload[:MAX_PAYLOAD_BYTES],
            }
            pipe.xadd(self._stream, row, maxlen=KEPT, approximate=True)  # type: ignore[arg-type]
        try:
            await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The dead letters were not taken: {error}.") from error

    async def newest(self, count: int) -> list[DeadLetter]:
        """Newest first. Raises DependencyUnavailable."""
        try:
            found = await self._client.xrevrange(self._stream, count=count)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The dead letters cannot be read: {error}.") from error
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        return [
            DeadLetter(
                _EPOCH + timedelta(microseconds=int(row[b"at_us"])),
                row[b"reason"].decode(errors="replace"),
                row[b"payload"],
            )
            for _, row in rows
        ]
