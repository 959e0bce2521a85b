"""alias: `predictions_current`, one key per application; it moves only by a server-side compare-and-set on its generation."""

from __future__ import annotations

from datetime import UTC, datetime

import redis

from infra.contracts.errors import FlipFenced, NothingToRollBackTo
from infra.contracts.ids import ApplicationName, VersionName, alias_value, version_name
from infra.contracts.snapshots import Alias
from infra.snapshots import keys

_FLIP = """#!lua flags=allow-oom
local seen = tonumber(redis.call('HGET', KEYS[1], 'generation') or '0')
if seen ~= tonumber(ARGV[1]) then
  return {0, seen, redis.call('HGET', KEYS[1], 'version') or ''}
end
local generation = seen + 1
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'generation', generation, 'digest', ARGV[3],
           'flipped_at', ARGV[4], 'actor', ARGV[5], 'reason', ARGV[6])
local depth = tonumber(ARGV[7])
if depth >= 0 then
  redis.call('LTRIM', KEYS[2], 0, depth - 1)
  if depth == 0 then redis.call('DEL', KEYS[2]) end
end
if redis.call('LINDEX', KEYS[2], -1) ~= ARGV[2] then
  redis.call('RPUSH', KEYS[2], ARGV[2])
end
redis.call('LTRIM', KEYS[2], -100, -1)
redis.call('PUBLISH', KEYS[3], ARGV[2])
return {1, generation, ARGV[2]}
"""
# allow-oom: with memory full and `noeviction` a plain write fails, so a rollback would fail when it is needed most.
# ARGV[7] >= 0 is a rollback: the history is cut to that length first, so that a second rollback goes further back.


class AliasStore:
    """Reads and moves one application's alias."""

    def __init__(self, client: redis.Redis, application: ApplicationName) -> None:
        self._client = client
        self._application = application
        self._flip = client.register_script(_FLIP)

    def read(self) -> Alias | None:
        """The alias now; None before the first flip."""
        row = self._client.hgetall(keys.alias(self._application))
        return parse_alias(row) if row else None

    def history(self) -> list[VersionName]:
        """The versions that were live and not rolled back, oldest first; the last one is live."""
        found = self._client.lrange(keys.alias_history(self._application), 0, -1)
        return [version_name(_text(value)) for value in found]

    def flip(
        self, version: VersionName, *, digest: str, expected_generation: int, actor: str, reason: str, depth: int = -1
    ) -> Alias:
        """Point the alias at a version if its generation is still the expected one, else raise FlipFenced.

        depth: for a rollback, how many entries of the history stay before the version is appended; -1 keeps all.
        """
        at = datetime.now(UTC)
        moved, generation, seen = self._flip(
            keys=[
                keys.alias(self._application),
                keys.alias_history(self._application),
                keys.alias_channel(self._application),
            ],
            args=[expected_generation, alias_value(version), digest, at.isoformat(), actor, reason, depth],
        )
        if not moved:
            live = self.read()
            wanted = (version, digest, expected_generation + 1)
            if live is not None and (live.version, live.digest, live.generation) == wanted:
                return live  # this very flip went through; only its answer was lost on the way
            raise FlipFenced(
                f"{self._application}: the alias is at generation {generation} ({seen.decode() or 'no version'}), "
                f"this flip to {version} began at generation {expected_generation}: another build or a rollback went first.",
                mend=f"{version} stays as it is; flip it on purpose with: "
                f"python -m infra.snapshots flip --application {self._application} --version {version} --force",
            )
        return Alias(version, int(generation), digest, at, actor, reason)

    def rollback_target(self, wanted: VersionName | None) -> tuple[VersionName, int]:
        """Which version a rollback goes to, and how much of the history stays before it.

        Without a wanted version it is the one before the live one. Raises NothingToRollBackTo.
        """
        history = self.history()
        if wanted is not None:
            before = history[:-1]
            if wanted in before:
                depth = len(before) - 1 - before[::-1].index(wanted)
                return wanted, depth
            return wanted, len(history)
        if len(history) < 2:
            raise NothingToRollBackTo(
                f"{self._application} has no version before {history[-1] if history else 'the first'}.",
                mend="Name one with: make rollback VERSION=v3",
            )
        return history[-2], len(history) - 2


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
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
