"""losses: how an operator goes on after the log lost records: count what the archive still holds, and accept the rest."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable, InvalidRequest, OperatorError
from infra.contracts.features import FeaturePlan
from infra.contracts.ids import ApplicationName
from infra.eventlog.protocol import EventLog, Extent
from infra.nearline.applying import apply_all, apply_one
from infra.nearline.archive import Archiver, end_of, read_archive, write_lost
from infra.nearline.counting import Horizon
from infra.nearline.state import Changes, Claim, StateStore
from infra.nearline.worker import PAGE
from infra.snapshots import keys
from infra.snapshots.storage import Storage

_RAISE_TIP = """#!lua
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return tonumber(redis.call('GET', KEYS[1]))
"""


@dataclass(frozen=True, slots=True)
class Skipped:
    """before, after: the state's offset. from_archive: records that were counted from the archive; lost: offsets nobody has."""

    shard: int
    before: int
    after: int
    from_archive: int
    lost: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What a loss concerns. log_client: of the Redis that holds the log; None where Kafka does."""

    application: ApplicationName
    log: EventLog
    store: StateStore
    archive: Storage
    plan: FeaturePlan
    horizon: int
    log_client: redis.asyncio.Redis | None


async def skip(scene: Scene, shard: int, *, owner: str, reason: str) -> Skipped:
    """Move state and archive past what the log lost. What the archive has and the state has not is counted from there first.

    A log that ends before what was read (Redis came back with less than it had acknowledged) goes on behind that: an offset is
    never used twice. Raises InvalidRequest where nothing is lost, OperatorError where a worker holds the shard or Kafka's topic
    was made anew, DependencyUnavailable. Stopped half way, it may be run again.
    """
    if not reason.strip():
        raise InvalidRequest("The reason is empty; wanted a few words for the records.", mend="Use --reason '...'")
    claim = await scene.store.claim(shard, owner)
    if claim is None:
        raise OperatorError(
            f"A worker of {scene.application} holds shard {shard}.", mend="Stop it, and wait 5 s, then run this again."
        )
    try:
        return await _skip(scene, claim, reason)
    finally:
        with contextlib.suppress(DependencyUnavailable):
            await scene.store.release([claim])


async def _skip(scene: Scene, claim: Claim, reason: str) -> Skipped:
    shard, before = claim.shard, claim.offset
    extent = (await scene.log.extents([shard]))[shard]
    archived = await asyncio.to_thread(end_of, scene.archive, shard)
    if all(extent.first - 1 <= offset <= extent.tip for offset in (before, archived)):
        raise InvalidRequest(
            f"Shard {shard} has lost nothing: the log holds {extent.first} to {extent.tip}, counted are {before}, "
            f"archived {archived}."
        )
    target = extent.first - 1
    if max(before, archived) > extent.tip:
        target = max(before, archived)
        archived = await _go_on_behind(scene, shard, extent, target, reason)
    from_archive = 0
    if before < archived:
        pieces = list(read_archive(scene.archive, shard, after=before, upto=archived))
        horizon = None if scene.log.finds_duplicates else Horizon(scene.horizon)
        claim = await apply_all(pieces, claim, scene.store, scene.plan, horizon=horizon)
        from_archive = sum(len(piece.offsets) for piece in pieces)
    lost = max(target - claim.offset, 0)
    if archived < target:
        write_lost(scene.archive, shard, after=archived, upto=target, reason=reason)
    if lost:
        claim = await apply_one(Changes(claim.offset, target, {}), claim, scene.store)
    return Skipped(shard, before, claim.offset, from_archive, lost)


async def _go_on_behind(scene: Scene, shard: int, extent: Extent, offset: int, reason: str) -> int:
    """Archive what the log still has, empty it, and let its next record come behind `offset`. Returns the archive's end."""
    if scene.log_client is None:
        raise OperatorError(
            f"Shard {shard} of the topic ends at {extent.tip}; it was read up to {offset} before: the topic was made anew, "
            "and its offsets would be used twice.",
            mend="Bring the topic back, or begin with an empty archive and an empty state.",
        )
    archived = await asyncio.to_thread(end_of, scene.archive, shard)
    if archived < extent.first - 1:
        write_lost(scene.archive, shard, after=archived, upto=extent.first - 1, reason=reason)
    if archived < extent.tip:
        archiver = Archiver(scene.log, scene.archive, records=PAGE, seconds=1)
        await archiver.catch_up(shard, extent.tip)
        archived = archiver.ends[shard]
    await scene.log.trim(shard, upto=extent.tip)  # first: a log whose offsets have a hole inside cannot be read
    await raise_tip(scene.log_client, scene.application, shard, offset)
    return archived


async def raise_tip(client: redis.asyncio.Redis, application: ApplicationName, shard: int, offset: int) -> int:
    """The next record of a log in Redis gets an offset beyond this one. Returns the tip. Raises DependencyUnavailable."""
    script = client.register_script(_RAISE_TIP)
    try:
        return cast(int, await script(keys=[keys.event_log_tip(application, shard)], args=[offset]))
    except (RedisError, OSError, TimeoutError) as error:
        raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}.") from error
