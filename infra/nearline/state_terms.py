"""state_terms: beside each shard's offset, the log's term that its records were read in: see `eventlog.terms`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.ids import ApplicationName
from infra.eventlog.protocol import Slice
from infra.eventlog.scripts import Script, executed
from infra.eventlog.terms import Read, require_same
from infra.nearline.state import Claim
from infra.snapshots import keys

_KEEP = Script("""#!lua
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then redis.call('HSET', KEYS[1], 'term', ARGV[2]) end
""")
# Behind the fence: one that was overtaken must not put an old term beside a newer offset.


class StateTerms:
    """Of one application. A state of which no term is known takes the log's on."""

    def __init__(self, client: redis.asyncio.Redis, application: ApplicationName) -> None:
        """client: of the Redis that holds the state."""
        self._client = client
        self._application = application

    async def of(self, shards: Sequence[int]) -> list[str]:
        """The terms that are kept, "" where none is. Raises DependencyUnavailable."""

        def ask(pipe: Any) -> None:
            for shard in shards:
                pipe.hget(keys.nearline_position(self._application, shard), "term")

        return [(found or b"").decode() for found in cast("list[bytes | None]", await self._executed(ask))]

    async def go_on(self, pieces: Sequence[tuple[Slice, Claim]]) -> None:
        """Before the slices are counted: keep the term that each was read in.

        Raises LogLost where the log no longer has what was read before a slice, DependencyUnavailable.
        """
        kept = await self.of([piece.shard for piece, _ in pieces])
        now = [
            require_same(piece.shard, piece.terms, Read(piece.after, term))
            for (piece, _), term in zip(pieces, kept, strict=True)
        ]

        def keep(pipe: Any) -> None:
            for (piece, claim), term in zip(pieces, now, strict=True):
                _KEEP.call(pipe, [keys.nearline_position(self._application, piece.shard)], [claim.epoch, term])

        if now != kept:
            await self._executed(keep)

    async def _executed(self, build: Callable[[Any], None]) -> list[Any]:
        try:
            return await executed(self._client, build, _KEEP)
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(
                f"The nearline state does not answer: {type(error).__name__}: {error}.", mend="Run: make status"
            ) from error
