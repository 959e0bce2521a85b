"""losses: how an operator goes on after the log lost records: count what the archive still holds, and accept the rest."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import redis.asyncio

from infra.contracts.errors import DependencyUnavailable, InvalidRequest, OperatorError
from infra.contracts.features import FeaturePlan
from infra.contracts.ids import ApplicationName
from infra.eventlog.protocol import EventLog, Extent
from infra.eventlog.terms import Read, holds_upto, may_read_on
from infra.nearline.applying import apply_all, apply_one
from infra.nearline.archive import Archiver, read_archive, read_upto, write_lost
from infra.nearline.counting import Horizon
from infra.nearline.resuming import move, seen_before
from infra.nearline.state import Changes, Claim, StateStore
from infra.nearline.state_terms import StateTerms
from infra.nearline.worker import PAGE
from infra.snapshots.storage import Storage


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
    terms: StateTerms
    archive: Storage
    plan: FeaturePlan
    horizon: int
    log_client: redis.asyncio.Redis | None


async def skip(scene: Scene, shard: int, *, owner: str, reason: str) -> Skipped:
    """Move state and archive past what the log lost. What the archive has and the state has not is counted from there first.

    A log that no longer has what was read (Redis came back with less than it had acknowledged, and may have grown since) goes on
    behind that, with all that it took since: an offset is never used twice. Raises InvalidRequest where nothing is lost,
    OperatorError where a worker holds the shard, where Kafka's topic was made anew, or where state and archive have read on in
    different histories; DependencyUnavailable. Stopped half way, it may be run again.
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
    (term,) = await scene.terms.of([shard])
    archive = await asyncio.to_thread(read_upto, scene.archive, shard)
    state, archive = Read(before, term or archive.term), Read(archive.offset, archive.term or term)
    if may_read_on(extent, state) and may_read_on(extent, archive):
        raise InvalidRequest(
            f"Shard {shard} has lost nothing: the log holds {extent.first} to {extent.tip}, counted are {before}, "
            f"archived {archive.offset}."
        )
    target, archived = extent.first - 1, archive.offset
    if any(read.offset > holds_upto(extent.terms, read.term, extent.tip) for read in (state, archive)):
        archived = await _go_on_behind(scene, shard, extent, (state, archive), reason)
        target = max(before, archived)
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


async def _go_on_behind(scene: Scene, shard: int, extent: Extent, reads: tuple[Read, Read], reason: str) -> int:
    """Archive what the log still has of what was read, and let all that it took since come behind. Returns the archive's end."""
    state, archive = reads
    uptos = [holds_upto(extent.terms, read.term, extent.tip) for read in reads]
    kept = min(upto for read, upto in zip(reads, uptos, strict=True) if read.offset > upto)
    if scene.log_client is None:
        raise OperatorError(
            f"Shard {shard} of the topic ends at {extent.tip}; it was read up to {max(state.offset, archive.offset)} before: the "
            "topic was made anew, and its offsets would be used twice.",
            mend="Bring the topic back, or begin with an empty archive and an empty state.",
        )
    if any(min(read.offset, upto) > kept for read, upto in zip(reads, uptos, strict=True)):
        raise OperatorError(
            f"Shard {shard} of the log is another one beyond {kept}. State (up to {state.offset}) and archive (up to "
            f"{archive.offset}) differ in what they read there.",
            mend=f"The archive stays: stop the workers, delete the keys hg:{{{scene.application}.*}}:state:* and :position, "
            "then run: python -m spark_jobs.nearline replay --restore",
        )
    archived = await _archived_upto(scene, shard, extent, archive.offset, kept, reason)
    seen = await asyncio.to_thread(seen_before, scene.archive, shard, upto=archived, horizon=scene.horizon)
    term = (await asyncio.to_thread(read_upto, scene.archive, shard)).term
    await move(
        scene.log_client,
        scene.application,
        shard,
        since=kept + 1,
        behind=max(state.offset, archived),
        horizon=scene.horizon,
        seen=seen,
        terms=(state.term, archive.term, term),
    )
    return archived


async def _archived_upto(scene: Scene, shard: int, extent: Extent, archived: int, upto: int, reason: str) -> int:
    """Archive what the log has up to an offset; what it has not is lost. Returns the archive's end."""
    if archived < (lost := min(extent.first - 1, upto)):
        write_lost(scene.archive, shard, after=archived, upto=lost, reason=reason)
        archived = lost
    while archived < upto:
        archiver = Archiver(scene.log, scene.archive, records=min(PAGE, upto - archived), seconds=1)
        await archiver.catch_up(shard, min(archived + PAGE, upto))
        archived = archiver.ends[shard]
    return archived
