"""looking: how far a log is counted and archived, what state lies in Redis, and what an entity's features are now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts import features as contract
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import SHARDS, shard_of
from infra.contracts.features import FeaturePlan, FeatureValue
from infra.contracts.ids import ApplicationName
from infra.eventlog.decisions import RedisDecisionLog
from infra.eventlog.protocol import EventLog
from infra.eventlog.scripts import executed
from infra.eventlog.terms import Read, may_read_on
from infra.nearline.archive import read_upto
from infra.nearline.decision_archive import end_of as decisions_end
from infra.nearline.decision_archive import tally_of
from infra.nearline.pending import READ, PendingRecords
from infra.nearline.state import StateStore, state_of
from infra.snapshots import keys
from infra.snapshots.storage import Storage

_SCAN = 2_000
_READ = 500


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard's standing. first, tip: what the log holds; lag: records that are not counted yet; owner: "" where none is;
    is_lost: the log lacks records that are to be counted or archived, or that are: see `losses`."""

    shard: int
    first: int
    tip: int
    applied: int
    archived: int
    lag: int
    owner: str
    epoch: int
    is_lost: bool


@dataclass(frozen=True, slots=True)
class Digests:
    """Of the state in Redis. is_still: no worker was at work meanwhile; only then the digests belong to the offsets."""

    digests: dict[int, str]
    offsets: dict[int, int]
    is_still: bool


@dataclass(frozen=True, slots=True)
class EntityFeatures:
    """What a request would see. pending: offsets beyond `offset` of the entity's own records that are in it already."""

    shard: int
    offset: int
    pending: tuple[int, ...]
    features: dict[str, FeatureValue]


async def status(
    log: EventLog, client: redis.asyncio.Redis, application: ApplicationName, archive: Storage
) -> list[ShardStatus]:
    """Every shard. Raises DependencyUnavailable."""
    pipe = client.pipeline(transaction=False)
    pipe.time()
    for shard in range(SHARDS):
        pipe.hmget(keys.nearline_position(application, shard), ["owner", "until", "epoch", "offset", "term"])
    (seconds, us), *held = await _answered(pipe.execute())
    ends = [await asyncio.to_thread(read_upto, archive, shard) for shard in range(SHARDS)]
    extents = await log.extents(range(SHARDS))  # last: what the others have reached lies within it
    out = []
    for shard, (owner, until, epoch, offset, term) in enumerate(held):
        archived = ends[shard].offset
        applied, extent = int(offset or 0), extents[shard]
        holds = owner is not None and int(until) > seconds * 1000 + us // 1000
        name = owner.decode() if holds else ""
        reads = (Read(applied, (term or b"").decode()), ends[shard])
        is_lost = any(not may_read_on(extent, read) for read in reads)
        lag = max(extent.tip - applied, 0)
        out.append(ShardStatus(shard, extent.first, extent.tip, applied, archived, lag, name, int(epoch or 0), is_lost))
    return out


async def dropped_decisions(log: RedisDecisionLog, archive: Storage) -> int:
    """How many answers their log dropped before they were archived, since the archive began. Raises DependencyUnavailable."""
    tally, end = await asyncio.to_thread(lambda: (tally_of(archive), decisions_end(archive)))
    waiting = await log.read(after=end, count=1)
    return tally.after(entry.number for entry in waiting).dropped


async def digests(client: redis.asyncio.Redis, application: ApplicationName, plan: FeaturePlan, now_us: int) -> Digests:
    """SHA-256 of each shard's state, as `contracts.features.digest` has it. Raises DependencyUnavailable."""
    store = StateStore(client, application, plan)
    before = await store.offsets()
    found: dict[int, str] = {}
    entities = await _entities(client, application)
    for shard in range(SHARDS):
        states = await _states(client, application, shard, entities.get(shard, []))
        found[shard] = contract.digest(states, plan, now_us)
    return Digests(found, before, await store.offsets() == before)


async def features_of(
    client: redis.asyncio.Redis,
    application: ApplicationName,
    plan: FeaturePlan,
    entity: tuple[str, str],
    now_us: int,
) -> EntityFeatures:
    """An entity's features at a moment. Raises DependencyUnavailable."""
    kind, entity_id = entity
    pending = PendingRecords(client, application, plan, kinds=frozenset())
    (reply,) = await _answered(executed(client, lambda pipe: pending.ask(pipe, kind, entity_id), READ))
    seen = pending.seen(kind, entity_id, reply)
    values = plan.features(kind, seen.state, now_us)
    return EntityFeatures(shard_of(kind, entity_id), seen.offset, seen.pending, values)


async def _entities(client: redis.asyncio.Redis, application: ApplicationName) -> dict[int, list[tuple[str, str]]]:
    """(kind, id) of all that has a state, by shard: one pass over Redis's keys."""
    prefixes = {keys.nearline_state(application, "", "", shard=shard)[:-1].encode(): shard for shard in range(SHARDS)}
    n_bytes = len(next(iter(prefixes)))
    found: dict[int, set[tuple[str, str]]] = {}
    try:
        async for key in client.scan_iter(match=keys.nearline_state_pattern(application), count=_SCAN):
            kind, _, entity_id = key[n_bytes:].decode().partition(":")
            found.setdefault(prefixes[key[:n_bytes]], set()).add((kind, entity_id))
    except (RedisError, OSError, TimeoutError) as error:
        raise _away(error) from error
    return {shard: sorted(entities) for shard, entities in found.items()}


async def _states(
    client: redis.asyncio.Redis, application: ApplicationName, shard: int, entities: list[tuple[str, str]]
) -> dict[tuple[str, str], Mapping[str, int]]:
    out: dict[tuple[str, str], Mapping[str, int]] = {}
    for at in range(0, len(entities), _READ):
        pipe = client.pipeline(transaction=False)
        for kind, entity_id in entities[at : at + _READ]:
            pipe.hgetall(keys.nearline_state(application, kind, entity_id, shard=shard))
        for entity, reply in zip(entities[at : at + _READ], await _answered(pipe.execute()), strict=True):
            out[entity] = state_of(reply)
    return out


async def _answered(asked: Awaitable[Any]) -> list[Any]:
    try:
        return cast("list[Any]", await asked)
    except (RedisError, OSError, TimeoutError) as error:
        raise _away(error) from error


def _away(error: Exception) -> DependencyUnavailable:
    return DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.", mend="Run: make status")
