"""alias: `predictions_current`, one key per application; it moves only by a server-side compare-and-set, and only up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import redis

from infra.contracts.canaries import Canary
from infra.contracts.errors import FlipFenced
from infra.contracts.ids import ApplicationName, alias_value, version_name
from infra.contracts.snapshots import Alias
from infra.snapshots import keys

_MOVE = """#!lua flags=allow-oom
local seen = redis.call('HMGET', KEYS[1], 'generation', 'version', 'digest')
local generation, version, digest = seen[1] or '0', seen[2] or '', seen[3] or ''
if generation ~= ARGV[1] or version ~= ARGV[2] or digest ~= ARGV[3] or tonumber(generation) >= tonumber(ARGV[4]) then
  return 0
end
redis.call('HSET', KEYS[1], 'generation', ARGV[4], 'version', ARGV[5], 'digest', ARGV[6],
           'flipped_at', ARGV[7], 'actor', ARGV[8], 'reason', ARGV[9], 'canary', ARGV[10], 'canary_version', ARGV[11])
redis.call('PUBLISH', KEYS[2], ARGV[5])
return 1
"""
# allow-oom: with memory full and `noeviction` a plain write fails, so a rollback would fail when it is needed most.


class AliasStore:
    """Reads and moves one application's alias."""

    def __init__(self, client: redis.Redis, application: ApplicationName) -> None:
        self._client = client
        self._application = application
        self._move = client.register_script(_MOVE)

    def read(self) -> Alias | None:
        """The alias now; None before the first flip."""
        row = self._client.hgetall(keys.alias(self._application))
        return parse_alias(row) if row else None

    def move(self, wanted: Alias, *, seen: Alias | None) -> Alias:
        """Let the alias say `wanted` if it still says what was seen: generation, version and digest. Returns what it says.

        Raises FlipFenced where it says something else, or would go to a generation that is not higher. A move that went
        through before, and only its answer was lost, is none.
        """
        moved = self._move(
            keys=[keys.alias(self._application), keys.alias_channel(self._application)],
            args=[
                *((seen.generation, alias_value(seen.version), seen.digest) if seen else (0, "", "")),
                wanted.generation,
                alias_value(wanted.version),
                wanted.digest,
                wanted.flipped_at.isoformat(),
                wanted.actor,
                wanted.reason,
                wanted.canary.to_json() if wanted.canary else "",
                alias_value(wanted.canary.version) if wanted.canary else "",
            ],
        )
        if moved:
            return wanted
        now = self.read()
        if now is not None and same(now, wanted):
            return now
        raise FlipFenced(
            f"{self._application}: the alias says {describe(now)}; wanted {describe(seen)}, to move it to {describe(wanted)}: "
            "another flip or a rollback went first.",
            mend="Look at what is live, then decide: make status",
        )


def same(one: Alias, other: Alias) -> bool:
    """Whether two say the same: generation, version and digest."""
    return (one.generation, one.version, one.digest) == (other.generation, other.version, other.digest)


def describe(alias: Alias | None) -> str:
    """For messages: `predictions_v3 at generation 7`."""
    return "nothing" if alias is None else f"{alias_value(alias.version)} at generation {alias.generation}"


def parse_alias(row: dict[bytes | str, bytes | str]) -> Alias:
    """The alias from its Redis hash."""
    found = {_text(name): _text(value) for name, value in row.items()}
    return Alias(
        version=version_name(found["version"]),
        generation=int(found["generation"]),
        digest=found["digest"],
        flipped_at=datetime.fromisoformat(found["flipped_at"]),
        actor=found["actor"],
        reason=found["reason"],
        canary=Canary.from_json(found["canary"]) if found.get("canary") else None,
    )


def parse_alias_reply(reply: Sequence[bytes | str]) -> Alias | None:
    """The alias from HGETALL as a script returns it, a value after each name; None where there is no such hash."""
    return parse_alias(dict(zip(reply[::2], reply[1::2], strict=True))) if reply else None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
