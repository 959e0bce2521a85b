"""decisions: the log of answers with all that they were made of, as one Redis stream, from which they go to the archive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import orjson
import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.decisions import Basis, Decision, Extent
from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.exposures import Arm
from infra.contracts.ids import ItemId, UserId, version_name

BEGINNING = "0-0"
_POSITION = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

_APPEND = """#!lua
local number = 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  local told = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #told, 2 do
    if told[i] == 'entries-added' then number = told[i + 1] end
  end
end
for at = 2, #ARGV, 2 do
  number = number + 1
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'd', ARGV[at], 'f', ARGV[at + 1], 'n', string.format('%.0f', number))
end
"""
# Each entry has the number that it is of all that ever came: so a reader sees how many were dropped before it came.


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """An answer as it is read back, and as the archive keeps it: document is JSON, features the matrix's bytes.

    number: which of all answers that the log ever took; 0 where that is not known, as in what the archive gives back.
    """

    position: str
    document: bytes
    features: bytes
    number: int = field(default=0, compare=False)

    def decision(self) -> Decision:
        """Raises ContractViolation where headgate did not write it."""
        return decoded(self.document, self.features)


class RedisDecisionLog:
    """Services append; the archiver reads. One entry an answer, 2 to 10 KB."""

    def __init__(self, client: redis.asyncio.Redis, stream: str, *, kept: int) -> None:
        """kept: entries; about so many stay."""
        self._client = client
        self._stream = stream
        self._kept = kept
        self._append = client.register_script(_APPEND)

    async def append(self, decisions: Sequence[Decision]) -> None:
        """Take all or none, in order. Raises DependencyUnavailable."""
        if not decisions:
            return
        args: list[str | bytes | int] = [self._kept]
        for decision in decisions:
            args += encoded(decision)
        try:
            await self._append(keys=[self._stream], args=args)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(
                f"The decision log did not take {len(decisions)}: {error}.", mend="Run: make status"
            ) from error

    async def read(self, *, after: str, count: int) -> list[LoggedDecision]:
        """Up to `count` entries after a position (BEGINNING: all). Raises InvalidRequest where it is none."""
        if _POSITION.fullmatch(after) is None:
            raise InvalidRequest(f"{after[:80]!r} is not a position of this log; wanted the form 1718000000000-0.")
        try:
            found = await self._client.xrange(self._stream, min=f"({after}", max="+", count=count)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The decision log cannot be read: {error}.") from error
        return _entries(found)

    async def newest(self, *, count: int, before: str = "") -> list[LoggedDecision]:
        """Up to `count` entries, newest first, from below a position or from the end. Raises DependencyUnavailable."""
        try:
            found = await self._client.xrevrange(self._stream, max=f"({before}" if before else "+", count=count)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The decision log cannot be read: {error}.") from error
        return _entries(found)

    async def trim(self, *, upto: str) -> None:
        """Drop what is archived: all up to a position."""
        milliseconds, _, sequence = upto.partition("-")
        try:
            await self._client.xtrim(self._stream, minid=f"{milliseconds}-{int(sequence) + 1}", approximate=False)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"The decision log cannot be trimmed: {error}.") from error


def _entries(found: object) -> list[LoggedDecision]:
    rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
    return [LoggedDecision(at.decode(), fields[b"d"], fields[b"f"], int(fields.get(b"n", b"0"))) for at, fields in rows]


def encoded(decision: Decision) -> tuple[bytes, bytes]:
    """The document, and the features as float32 little-endian."""
    fields: dict[str, Any] = {name: getattr(decision, name) for name in _PLAIN}
    fields["arm"] = decision.arm.value
    fields["basis"] = asdict(decision.basis)
    fields["nearline"] = dict(decision.nearline)
    if decision.extents:
        fields["extents"] = {name: [extent.rows, extent.parts] for name, extent in decision.extents.items()}
    fields["scores"] = [float(score) for score in decision.scores]  # float32 is exact in a double
    return orjson.dumps(fields), np.ascontiguousarray(decision.features, "<f4").tobytes()


_PLAIN = (
    "request_id", "user_id", "request", "generation", "version", "items", "list_digest", "columns", "decided_by", "degraded",
    "stage_ms", "skipped",
)  # fmt: skip

_TUPLES = ("pending", "uncounted", "board_offsets")


def decoded(document: bytes, features: bytes) -> Decision:
    """The inverse of `encoded`. Raises ContractViolation."""
    try:
        said = orjson.loads(document)
        basis = said["basis"]
        columns = tuple(said["columns"])
        return Decision(
            request_id=said["request_id"],
            user_id=UserId(said["user_id"]),
            request=said["request"],
            generation=said["generation"],
            version=version_name(said["version"]),
            arm=Arm(said["arm"]),
            basis=Basis(**basis | {name: tuple(basis[name]) for name in _TUPLES}),
            nearline={name: _value(value) for name, value in said["nearline"].items()},
            items=tuple(ItemId(item) for item in said["items"]),
            scores=np.array(said["scores"], np.float32),
            list_digest=said["list_digest"],
            columns=columns,
            features=np.frombuffer(features, "<f4").astype(np.float32).reshape(-1, max(1, len(columns))),
            decided_by=said["decided_by"],
            degraded=said["degraded"],
            stage_ms=said["stage_ms"],
            skipped=said["skipped"],
            extents={name: Extent(*extent) for name, extent in said.get("extents", {}).items()},
        )
    except (KeyError, TypeError, ValueError, InvalidRequest) as error:
        raise ContractViolation(f"The decision log holds what headgate did not write: {document[:120]!r}.") from error


def _value(said: Any) -> Any:
    """JSON knows no tuples."""
    if not isinstance(said, list):
        return said
    return tuple(tuple(one) if isinstance(one, list) else one for one in said)
