"""reading: what the two logs, of lists shown and of events, hold since a moment; and whether they still reach back to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import cast

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from infra.catalog.applications.spec import ApplicationSpec
from infra.config.settings import Settings
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.exposures import Exposure
from infra.contracts.ids import ItemId
from infra.eventlog.exposures import RedisExposureLog
from infra.eventlog.protocol import EventLog
from infra.experiments.deeds import deeds_since, whole_since_s
from infra.experiments.visits import Did
from infra.nearline.opening import open_log
from infra.snapshots import keys
from infra.snapshots.connection import serving_client

_PAGE = 5_000
_TIMEOUT_S = 30.0

EARLIER = timedelta(seconds=60)
"""Read from so much before the wanted moment on: clocks differ, and what is not wanted is left out by generation or time."""


@dataclass(frozen=True, slots=True)
class Spans:
    """What both logs hold since a moment, oldest first; of the events those that count.

    trimmed: why they cannot be judged by, as a sentence, where entries since that moment may be gone already; else empty.
    mend: what is to be done then. kept_since_s: Unix seconds from which on both logs are whole; 0 where they always were.
    """

    exposures: list[Exposure]
    events: list[Did]
    trimmed: str
    mend: str
    kept_since_s: float


def read_spans(
    chosen: Settings, spec: ApplicationSpec, *, since: datetime, now: datetime, earlier: timedelta = EARLIER
) -> Spans:
    """Read both logs from that moment to their ends, and so much before it as is there. Raises DependencyUnavailable."""
    return asyncio.run(_with_clients(chosen, spec, since=since, now=now, earlier=max(earlier, EARLIER)))


async def _with_clients(
    chosen: Settings, spec: ApplicationSpec, *, since: datetime, now: datetime, earlier: timedelta
) -> Spans:
    client = serving_client(chosen.redis_url.get_secret_value(), timeout_s=_TIMEOUT_S)
    log = open_log(chosen, spec.name, timeout_s=_TIMEOUT_S)
    try:
        return await spans(client, log, spec, since=since, now=now, earlier=earlier)
    finally:
        await log.close()
        await client.aclose()


async def spans(
    client: redis.asyncio.Redis,
    log: EventLog,
    spec: ApplicationSpec,
    *,
    since: datetime,
    now: datetime,
    earlier: timedelta = EARLIER,
) -> Spans:
    """As `read_spans`, with connections that stay open; client: of the lists shown. Their item ids are held once each."""
    exposure_stream = keys.exposure_log(spec.name)
    lists = RedisExposureLog(client, exposure_stream, kept=1)
    exposures: list[Exposure] = []
    known: dict[ItemId, ItemId] = {}
    after = f"{int((since - earlier).timestamp() * 1000)}-0"
    while page := await lists.read(after=after, count=_PAGE):
        for one in page:
            items = tuple(known.setdefault(item, item) for item in one.exposure.items)
            exposures.append(replace(one.exposure, items=items))
        after = page[-1].position
        if len(page) < _PAGE:
            break
    events = await deeds_since(log, spec, since=since - earlier)
    # Last: what was trimmed while this read is seen as well.
    exposures_from_s = await _whole_since_s(client, exposure_stream)
    events_from_s = await whole_since_s(log, now=now)
    trimmed = mend = ""
    if exposures_from_s > since.timestamp():
        trimmed = _gone("lists shown", exposures_from_s, since)
        mend = "Set HEADGATE_EXPOSURES_KEPT to more than the lists shown in the time of a canary, and start the canary again."
    elif events_from_s > since.timestamp():
        trimmed = _gone("events", events_from_s, since)
        mend = "Set HEADGATE_LOG_KEPT_RECORDS to more than a shard takes in the time of a canary, and start the canary again."
    return Spans(exposures, events, trimmed, mend, max(exposures_from_s, events_from_s))


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
    return int(position.split("-")[0]) / 1000.0


def _gone(what: str, from_s: float, since: datetime) -> str:
    begins = datetime.fromtimestamp(from_s, UTC)
    form = "%Y-%m-%d %H:%M:%S"
    return f"The log of {what} begins at {begins:{form}} UTC, wanted from {since:{form}} UTC on: older ones are gone."
