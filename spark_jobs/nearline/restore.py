"""restore: a replayed state written into a Redis that lost its own, behind the fence, so that the worker goes on from there.

For each shard: claim it, delete what a killed restore left, add the entities piece by piece while the offset stays 0, and let the
last piece move the offset to where the replay ended. A shard whose offset is 0 has counted nothing; so a restore that was killed
is simply run again, and one that was done already is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame

from infra.contracts.errors import OperatorError
from infra.contracts.events import SHARDS
from infra.contracts.features import FeaturePlan
from infra.contracts.ids import ApplicationName
from infra.nearline.applying import apply_one
from infra.nearline.state import Changes, StateStore
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from spark_jobs.nearline.replay import states_in

_ENTITIES = 500
_FIELDS = 20_000
"""Of a piece: an apply of so many holds Redis for a few milliseconds."""

_TIMEOUT_S = 10.0
_CLEAN_AFTER_US = 600_000_000

States = dict[tuple[str, str], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a state goes. upto: the offsets it is of; owner: the claims' name; seen: by shard, duplicate keys and their offsets
    of the last horizon, in two halves, for logs whose reader finds what was sent twice."""

    redis_url: str
    application: ApplicationName
    plan: FeaturePlan
    upto: Mapping[int, int]
    owner: str
    now_us: int
    seen: Mapping[int, tuple[dict[str, int], dict[str, int]]]


async def require_empty(target: Target) -> None:
    """Raise OperatorError where a shard has counted anything, for nobody could tell the sum of two states from one."""
    client = serving_client(target.redis_url, timeout_s=_TIMEOUT_S)
    try:
        offsets = await StateStore(client, target.application, target.plan).offsets()
    finally:
        await client.aclose()
    held = {shard: offset for shard, offset in offsets.items() if offset and offset != target.upto[shard]}
    if held:
        raise OperatorError(
            f"The nearline state of {target.application} is not empty: shard {min(held)} is counted up to {held[min(held)]}.",
            mend="A state that Redis still has needs no restore. To begin anew, stop the workers and delete the keys "
            f"hg:{{{target.application}.*}}:state:* and :position first.",
        )


def restore(states: DataFrame, target: Target) -> dict[int, int]:
    """Write every shard, each by one task that holds the shard's state in memory. Returns how many entities each got.

    Raises OperatorError where a worker holds a shard, DependencyUnavailable.
    """
    found = states.groupBy("shard").applyInArrow(_restorer(target), "shard int, entities long").toArrow()
    done = dict(zip(found["shard"].to_pylist(), found["entities"].to_pylist(), strict=True))
    for shard in set(range(SHARDS)) - done.keys():
        done[shard] = asyncio.run(restore_shard(target, shard, {}))
    return dict(sorted(done.items()))


def _restorer(target: Target) -> Callable[[pa.Table], pa.Table]:
    def one(rows: pa.Table) -> pa.Table:
        shard = rows["shard"][0].as_py()
        entities = asyncio.run(restore_shard(target, shard, states_in(rows)))
        return pa.table({"shard": pa.array([shard], pa.int32()), "entities": pa.array([entities], pa.int64())})

    return one


async def restore_shard(target: Target, shard: int, states: States) -> int:
    """One shard; returns how many entities have a state that counts at `now_us` or later, 0 where it was done already."""
    client = serving_client(target.redis_url, timeout_s=_TIMEOUT_S)
    try:
        store = StateStore(client, target.application, target.plan)
        claim = await store.claim(shard, target.owner)
        if claim is None:
            raise OperatorError(
                f"A worker of {target.application} holds shard {shard}.",
                mend="Stop it, and wait 5 s, then run this again.",
            )
        if claim.offset or not target.upto[shard]:
            await store.release([claim])
            return 0
        tag = keys.shard_tag(target.application, shard)
        for pattern in (f"{tag}state:*", f"{tag}seen_?"):
            left = [key async for key in client.scan_iter(match=pattern, count=2_000)]
            for at in range(0, len(left), _ENTITIES):
                await client.unlink(*left[at : at + _ENTITIES])
                await store.renew([claim])
        wanted = _that_count(states, target)
        for piece in _pieces(wanted):
            claim = await apply_one(Changes(0, 0, piece), claim, store)
        halves = target.seen.get(shard, ({}, {}))
        seen = [(False, [part for pair in half.items() for part in pair]) for half in halves]
        claim = await apply_one(Changes(0, target.upto[shard], {}, seen=seen), claim, store)
        await store.release([claim])
        return len(wanted)
    finally:
        await client.aclose()


def _that_count(states: States, target: Target) -> States:
    """Without what counts in no window any more: the archive is older than any of them."""
    out: States = {}
    for (kind, entity_id), state in states.items():
        gone = set(target.plan.stale(kind, state, target.now_us - _CLEAN_AFTER_US))
        if kept := {name: amount for name, amount in state.items() if name not in gone}:
            out[kind, entity_id] = kept
    return out


def _pieces(states: States) -> Sequence[States]:
    """Of few entities and few fields each; a large entity is cut, for its fields are independent."""
    pieces: list[States] = [{}]
    fields = 0
    for entity, state in states.items():
        names = list(state)
        for at in range(0, len(names), _FIELDS):
            if fields >= _FIELDS or len(pieces[-1]) >= _ENTITIES:
                pieces.append({})
                fields = 0
            part = {name: state[name] for name in names[at : at + _FIELDS]}
            pieces[-1][entity] = part
            fields += len(part)
    return [piece for piece in pieces if piece]
