"""exposures: the log of lists shown, as one Redis stream; who was shown what, from which snapshot, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import orjson
import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId, version_name
from infra.eventlog.redis_streams import POSITION

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LoggedExposure:
    """A list as it is read back."""

    position: str
    exposure: Exposure


class RedisExposureLog:
    """Appended to by services, read by whoever compares snapshots. One entry a list; the oldest go first."""

    def __init__(self, client: redis.asyncio.Redis, stream: str, *, kept: int) -> None:
        """kept: entries; about so many stay."""
        self._client = client
        self._stream = stream
        self._kept = kept

    async def append(self, exposures: Sequence[Exposure]) -> None:
        """One round trip. Raises DependencyUnavailable; then some may have been taken, and none is taken twice by itself."""
        if not exposures:
            return
        pipe = self._client.pipeline(transaction=False)
        for exposure in exposures:
            pipe.xadd(self._stream, _fields(exposure), maxlen=self._kept, approximate=True)  # type: ignore[arg-type]
        try:
            await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(
                f"The log of lists shown did not take all of {len(exposures)}: {error}.", mend="Run: make status"
            ) from error

    async def read(self, *, after: str, count: int) -> list[LoggedExposure]:
        """Up to `count` lists after a position ("0-0": from the beginning). Raises InvalidRequest where it is none."""
        if POSITION.fullmatch(after) is None:
            raise InvalidRequest(f"{after[:80]!r} is not a position of this log; wanted the form 1718000000000-0.")
        try:
            found = await self._client.xrange(self._stream, min=f"({after}", max="+", count=count)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The log of lists shown cannot be read: {error}.") from error
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        return [LoggedExposure(position.decode(), _exposure(fields)) for position, fields in rows]


def _fields(exposure: Exposure) -> dict[str, str | bytes | int]:
    return {
        "request_id": exposure.request_id,
        "user_id": exposure.user_id,
        "at_us": (exposure.at - _EPOCH) // timedelta(microseconds=1),
        "generation": exposure.generation,
        "version": exposure.version,
        "arm": exposure.arm.value,
        "items": orjson.dumps(exposure.items),
        "total_ms": f"{exposure.total_ms:.3f}",
        "degraded": int(exposure.degraded),
    }


def _exposure(fields: dict[bytes, bytes]) -> Exposure:
    try:
        return Exposure(
            request_id=fields[b"request_id"].decode(),
            user_id=UserId(fields[b"user_id"].decode()),
            at=_EPOCH + timedelta(microseconds=int(fields[b"at_us"])),
            generation=int(fields[b"generation"]),
            version=version_name(fields[b"version"].decode()),
            arm=Arm(fields[b"arm"].decode()),
            items=tuple(ItemId(item) for item in orjson.loads(fields[b"items"])),
            total_ms=float(fields[b"total_ms"]),
            degraded=fields[b"degraded"] == b"1",
        )
    except (KeyError, ValueError, TypeError, InvalidRequest) as error:
        raise ContractViolation(
            f"The log of lists shown holds a row that headgate did not write: {sorted(fields)}."
        ) from error
