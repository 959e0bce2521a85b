"""reading: what the two logs, of lists shown and of events, hold since a moment; and whether they still reach back to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import cast

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.exposures import Exposure
from infra.contracts.ids import ItemId
from infra.eventlog.exposures import RedisExposureLog
from infra.eventlog.protocol import Logged
from infra.eventlog.redis_streams import RedisStreamLog, StreamLayout
from infra.experiments.visits import logged_s
from infra.snapshots import keys
from infra.snapshots.connection import serving_client

_PAGE = 5_000
_TIMEOUT_S = 30.0

EARLIER = timedelta(seconds=60)
"""Read from so much before the wanted moment on: clocks differ, and what is not wanted is left out by generation or time."""


@dataclass(frozen=True, slots=True)
class Spans:
    """What both logs hold since a moment, oldest first.

    trimmed: why they cannot be judged by, as a sentence, where entries since that moment may be gone already; else empty.
    mend: what is to be done then. kept_since_s: Unix seconds from which on both logs are whole; 0 where they always were.
    """

    exposures: list[Exposure]
    events: list[Logged]
    trimmed: str
    mend: str
    kept_since_s: float


def read_spans(url: str, spec: ApplicationSpec, *, since: datetime, earlier: timedelta = EARLIER) -> Spans:
    """Read both logs from that moment to their ends, and so much before it as is there. Raises DependencyUnavailable."""
    return asyncio.run(_with_client(url, spec, since=since, earlier=max(earlier, EARLIER)))


async def _with_client(url: str, spec: ApplicationSpec, *, since: datetime, earlier: timedelta) -> Spans:
    client = serving_client(url, timeout_s=_TIMEOUT_S)
    try:
        return await spans(client, spec, since=since, earlier=earlier)
    finally:
        await client.aclose()


async def spans(
    client: redis.asyncio.Redis, spec: ApplicationSpec, *, since: datetime, earlier: timedelta = EARLIER
) -> Spans:
    """As `read_spans`, with a client that stays open. Item ids are held once, however many lists show them."""
    exposure_stream, event_stream = keys.exposure_log(spec.name), keys.event_log(spec.name)
    lists = RedisExposureLog(client, exposure_stream, kept=1)
    layout = StreamLayout(
        stream=event_stream,
        seen=lambda event_id: keys.event_seen(spec.name, event_id),
        recent=lambda user_id: keys.recent_items(spec.name, user_id),
        counts=lambda event_type: spec.gain(event_type) > 0,
    )
    log = RedisStreamLog(client, layout)
    begins = f"{int((since - earlier).timestamp() * 1000)}-0"
    exposures: list[Exposure] = []
    known: dict[ItemId, ItemId] = {}
    after = begins
    while page := await lists.read(after=after, count=_PAGE):
        for one in page:
            items = tuple(known.setdefault(item, item) for item in one.exposure.items)
            exposures.append(replace(one.exposure, items=items))
        after = page[-1].position
        if len(page) < _PAGE:
            break
    events: list[Logged] = []
    after = begins
    while rows := await log.read(after=after, count=_PAGE):
        events += [row for row in rows if _counts(row, spec)]
        after = rows[-1].position
        if len(rows) < _PAGE:
            break
    # Last: what was trimmed while this read is seen as well.
    exposures_from_s = await _whole_since_s(client, exposure_stream)
    events_from_s = await _whole_since_s(client, event_stream)
    trimmed = mend = ""
    if exposures_from_s > since.timestamp():
        trimmed = _gone("lists shown", exposures_from_s, since)
        mend = "Set HEADGATE_EXPOSURES_KEPT to more than the lists shown in the time of a canary, and start the canary again."
    elif events_from_s > since.timestamp():
        trimmed = _gone("events", events_from_s, since)
        mend = f"It keeps about {layout.max_events:,}: start the canary again and decide it within fewer events."
    return Spans(exposures, events, trimmed, mend, max(exposures_from_s, events_from_s))


def _counts(row: Logged, spec: ApplicationSpec) -> bool:
    kind = row.event.event_type
    return spec.gain(kind) > 0 or kind in spec.conversions


async def _whole_since_s(client: redis.asyncio.Redis, stream: str) -> float:
    """From when on the stream holds all it was given, Unix seconds; 0 where nothing was ever dropped from it."""
    try:
        found = await client.xinfo_stream(stream)
    except ResponseError:  # no such key: nothing was logged yet
        return 0.0
    except (RedisError, OSError, TimeoutError) as error:
        raise DependencyUnavailable(f"The log {stream} cannot be read: {error}.") from error
    info = cast("dict[str, object]", found)
    if int(str(info["entries-added"])) <= int(str(info["length"])):
        return 0.0
    first = cast("tuple[bytes, object] | None", info["first-entry"])
    position = first[0].decode() if first else cast(bytes, info["last-generated-id"]).decode()
    return logged_s(position)


def _gone(what: str, from_s: float, since: datetime) -> str:
    begins = datetime.fromtimestamp(from_s, UTC)
    form = "%Y-%m-%d %H:%M:%S"
    return f"The log of {what} begins at {begins:{form}} UTC, wanted from {since:{form}} UTC on: older ones are gone."
