"""deeds: what users did since a moment, from all shards of the event log; and from when on that log is whole."""

from __future__ import annotations

from datetime import datetime

from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.events import SHARDS
from infra.eventlog import records as wire
from infra.eventlog.protocol import EventLog, Extent, LogLost, Slice
from infra.experiments.visits import Did

_PAGE = 5_000


async def deeds_since(log: EventLog, spec: ApplicationSpec, *, since: datetime) -> list[Did]:
    """What was logged from that moment to now and counts, by the time it was logged. Raises DependencyUnavailable.

    An event that a producer sent twice may be here twice: whoever judges asks whether an item was clicked, not how often.
    """
    after, tips = await _begin(log, since)
    found: list[Did] = []
    while behind := {shard: offset for shard, offset in after.items() if offset < tips[shard]}:
        try:
            pieces = await log.read(behind, count=_PAGE)
        except LogLost:  # trimmed meanwhile: `whole_since_s` says from where on; what is left is read
            found.clear()
            after, tips = await _begin(log, since)
            continue
        for piece in pieces:
            after[piece.shard] = piece.upto
            found += _deeds(piece, spec)
    return sorted(found, key=lambda deed: deed.logged_s)


async def whole_since_s(log: EventLog, *, now: datetime) -> float:
    """From when on every shard holds all it was given, Unix seconds; 0 where nothing was ever dropped. Read this last.

    A shard of which nothing is kept is whole from `now` on.
    """
    extents = await log.extents(range(SHARDS))
    try:
        first_s = [await _first_logged_s(log, shard, extent) for shard, extent in extents.items() if extent.first > 1]
    except LogLost:  # trimmed just now: later ones are the first
        return await whole_since_s(log, now=now)
    return max((now.timestamp() if at_s is None else at_s for at_s in first_s), default=0.0)


async def _first_logged_s(log: EventLog, shard: int, extent: Extent) -> float | None:
    after = extent.first - 1
    while after < extent.tip:
        for piece in await log.read({shard: after}, count=1):
            if piece.logged_ms:
                return piece.logged_ms[0] / 1000.0
            after = piece.upto
    return None


async def _begin(log: EventLog, since: datetime) -> tuple[dict[int, int], dict[int, int]]:
    """By shard: the offset behind which to read, and the one to read up to."""
    after = {shard: await log.offset_before(shard, since) for shard in range(SHARDS)}
    return after, {shard: extent.tip for shard, extent in (await log.extents(range(SHARDS))).items()}


def _deeds(piece: Slice, spec: ApplicationSpec) -> list[Did]:
    """Of the user's record of each event: the item's says the same."""
    return [
        Did(logged_ms / 1000.0, record.user_id, record.item_id, record.event_type)
        for logged_ms, record in zip(piece.logged_ms, wire.decode(piece.payloads), strict=True)
        if record.kind == "user" and (spec.gain(record.event_type) > 0 or record.event_type in spec.conversions)
    ]
