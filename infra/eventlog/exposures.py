"""exposures: the log of lists shown, as one Redis stream; who was shown what, from which snapshot, and how long it took."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import orjson
import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId, version_name
from infra.eventlog.protocol import LoggedExposure

_APPEND = """#!lua
local stream, kept = KEYS[1], ARGV[1]
for at = 2, #ARGV, 9 do
  redis.call('XADD', stream, 'MAXLEN', '~', kept, '*', 'request_id', ARGV[at], 'user_id', ARGV[at + 1],
    'at_us', ARGV[at + 2], 'generation', ARGV[at + 3], 'version', ARGV[at + 4], 'arm', ARGV[at + 5],
    'items', ARGV[at + 6], 'total_ms', ARGV[at + 7], 'degraded', ARGV[at + 8])
end
"""
# A script and not a pipeline of XADD: one command costs the caller's event loop a third of that, and with memory full
# it is refused before its first write, so that a caller can count what was lost.

_POSITION = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RedisExposureLog:
    """An ExposureLog: services append to it, whoever compares snapshots reads it. One entry a list."""

    def __init__(self, client: redis.asyncio.Redis, stream: str, *, kept: int) -> None:
        """kept: entries; about so many stay."""
        self._client = client
        self._stream = stream
        self._kept = kept
        self._append = client.register_script(_APPEND)

    async def append(self, exposures: Sequence[Exposure]) -> None:
        """Take all lists or none, in order. Raises DependencyUnavailable; a list that was taken is not taken twice by itself."""
        if not exposures:
            return
        args: list[str | bytes | int] = [self._kept]
        for exposure in exposures:
            args += _values(exposure)
        try:
            await self._append(keys=[self._stream], args=args)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(
                f"The log of lists shown did not take {len(exposures)}: {error}.", mend="Run: make status"
            ) from error

    async def read(self, *, after: str, count: int) -> list[LoggedExposure]:
        """Up to `count` lists after a position ("0-0": from the beginning). Raises InvalidRequest where it is none."""
        if _POSITION.fullmatch(after) is None:
            raise InvalidRequest(f"{after[:80]!r} is not a position of this log; wanted the form 1718000000000-0.")
        try:
            found = await self._client.xrange(self._stream, min=f"({after}", max="+", count=count)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The log of lists shown cannot be read: {error}.") from error
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        return [LoggedExposure(position.decode(), _exposure(fields)) for position, fields in rows]


def _values(exposure: Exposure) -> tuple[str | bytes | int, ...]:
    """In the order in which the script takes them."""
    return (
        exposure.request_id,
        exposure.user_id,
        (exposure.at - _EPOCH) // timedelta(microseconds=1),
        exposure.generation,
        exposure.version,
        exposure.arm.value,
        orjson.dumps(exposure.items),
        f"{exposure.total_ms:.3f}",
        int(exposure.degraded),
    )


def _exposure(fields: dict[bytes, bytes]) -> Exposure:
    try:
        return Exposure(
            request_id=fields[b"request_id"].decode(),
            user_id=UserId(fields[b"user_id"].decode()),
            at=_EPOCH + timedelta(microseconds=int(fields[b"at_us"])),
            generation=int(fields[b"generation"]),
            version=version_name(fields[b"version"].decode()),
            arm=Arm(fields[b"arm"].decode()),
            items=_items(fields[b"items"]),
            total_ms=_finite(fields[b"total_ms"]),
            degraded={b"0": False, b"1": True}[fields[b"degraded"]],
        )
    except (KeyError, ValueError, OverflowError, InvalidRequest) as error:
        raise ContractViolation(
            f"The log of lists shown holds a row that headgate did not write: {sorted(fields)}."
        ) from error


def _items(text: bytes) -> tuple[ItemId, ...]:
    found = orjson.loads(text)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError("items are not a list of ids")
    return tuple(ItemId(item) for item in found)


def _finite(text: bytes) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number
