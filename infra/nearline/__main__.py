"""python -m infra.nearline: the nearline worker, and what an operator asks or does about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated

import redis.asyncio
import typer
from rich.table import Table
from rich.text import Text

from infra.catalog.events import schema_of
from infra.catalog.features.nearline import plan_of
from infra.config import console
from infra.config.settings import settings
from infra.contracts.errors import InvalidRequest
from infra.contracts.events import SHARDS
from infra.contracts.features import FeaturePlan
from infra.contracts.ids import ApplicationName, check_id
from infra.eventlog.decisions import RedisDecisionLog
from infra.eventlog.protocol import EventLog
from infra.nearline import looking, losses, running
from infra.nearline.archive import Archiver, archive_of
from infra.nearline.moments import microseconds, moment_or_none
from infra.nearline.opening import open_log
from infra.nearline.state import StateStore
from infra.nearline.state_terms import StateTerms
from infra.nearline.trimming import Consumers
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from infra.snapshots.shell import JsonOnly, result_for_machines, say
from infra.snapshots.storage import Storage

Application = Annotated[str, typer.Option(help="whose events")]
Now = Annotated[str, typer.Option(help="the moment, such as 2026-05-01T12:00:00Z; default: now")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command()
def run(
    *,
    application: Application = "ranking",
    name: Annotated[str, typer.Option(help="what the worker's name begins with; default: the host's name")] = "",
    archive: Annotated[
        bool,
        typer.Option("--archive/--no-archive", help="archive and trim as well; one of an application's workers must"),
    ] = True,
    count: Annotated[
        bool, typer.Option("--count/--no-count", help="count; not where python -m spark_jobs.nearline stream does")
    ] = True,
) -> None:
    """Count the log's events until SIGTERM or Ctrl-C; archive them and trim the log besides. Several share the shards.

    It waits while Redis, Kafka or the store is away. Where events are lost it says so and ends with exit code 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    of, chosen = schema_of(application).application, settings()
    if not (count or archive):
        raise InvalidRequest("With --no-count and --no-archive there is nothing to do.")
    ended = asyncio.run(running.run(chosen, of, name=running.unique_name(name), count=count, archive=archive))
    console.result({"application": of, "name": ended.name, **asdict(ended.progress)})


@app.command()
def status(*, application: Application = "ranking", json: JsonOnly = False) -> None:
    """How far each shard's log is counted and archived, and by whom; how many answers were dropped before they were archived."""

    async def ask() -> tuple[list[looking.ShardStatus], int]:
        async with _opened(application) as scene, _answers(scene.application) as answers:
            dropped = await looking.dropped_decisions(answers, scene.archive)
            return await looking.status(scene.log, scene.client, scene.application, scene.archive), dropped

    shards, dropped = asyncio.run(ask())
    if not json:
        names = ("shard", "tip", "counted", "lag", "archived", "worker")
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in names:
            table.add_column(column, justify="left" if column == "worker" else "right")
        for row in shards:
            figures = (row.shard, row.tip, row.applied, row.lag, row.archived)
            table.add_row(*(f"{figure:,}" for figure in figures), Text(row.owner or "-"))
        console.notes.print(table)
    for row in shards:
        if row.is_lost:
            say(
                f"Shard {row.shard} has lost records. "
                f'Run: python -m infra.nearline skip --shard {row.shard} --reason "why"',
                json=json,
            )
    if dropped:
        say(f"{dropped:,} answers were dropped before they were archived. See HEADGATE_DECISIONS_KEPT.", json=json)
    lag = sum(row.lag for row in shards)
    fields = {
        "application": application,
        "lag": lag,
        "decisions_dropped": dropped,
        "shards": [asdict(row) for row in shards],
    }
    result_for_machines(fields, wanted=json)


@app.command()
def digest(*, application: Application = "ranking", now: Now = "", json: JsonOnly = False) -> None:
    """SHA-256 of each shard's state in Redis, and the offsets it belongs to, if no worker was at work: `is_still`.

    The replay of the archive to those offsets gives the same at the same moment (python -m spark_jobs.nearline replay). Take a
    moment that is not long past: what counts in no window any more is dropped.
    """
    moment = moment_or_none(now, flag="--now") or datetime.now(UTC)

    async def ask() -> looking.Digests:
        async with _opened(application) as scene:
            return await looking.digests(scene.client, scene.application, scene.plan, microseconds(moment))

    found = asyncio.run(ask())
    for shard, value in found.digests.items():
        say(f"{shard:2d} at {found.offsets[shard]:,}: {value}", json=json)
    if not found.is_still:
        say("A worker was at work meanwhile: these digests belong to no offsets.", json=json)
    result_for_machines({"application": application, "now": moment.isoformat(), **asdict(found)}, wanted=json)


@app.command()
def features(
    kind: Annotated[str, typer.Argument(help="a kind of entity, such as user")],
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="its id")],
    *,
    application: Application = "ranking",
    now: Now = "",
    json: JsonOnly = False,
) -> None:
    """What is known of an entity now, as a request would see it (`features user u1`)."""
    kinds = plan_of(application).kinds()
    if kind not in kinds:
        raise InvalidRequest(f"{kind!r} is no kind of {application}; there are: {', '.join(sorted(kinds))}.")
    entity, moment = (kind, check_id(entity_id, what="ID")), moment_or_none(now, flag="--now") or datetime.now(UTC)

    async def ask() -> looking.EntityFeatures:
        async with _opened(application) as scene:
            return await looking.features_of(scene.client, scene.application, scene.plan, entity, microseconds(moment))

    found = asyncio.run(ask())
    for name, value in found.features.items():
        say(f"{name}: {value if isinstance(value, int) else ', '.join(map(str, value)) or '-'}", json=json)
    fields = {"kind": kind, "id": entity_id, "now": moment.isoformat(), **asdict(found)}
    result_for_machines(fields, wanted=json)


@app.command()
def skip(
    *,
    shard: Annotated[int, typer.Option(min=0, max=SHARDS - 1, help="which shard lost records")],
    reason: Annotated[str, typer.Option(help="why, for the records: it goes into the archive")],
    application: Application = "ranking",
    json: JsonOnly = False,
) -> None:
    """Accept that a shard of the log lost records: count what the archive has of them, and go on behind the rest."""

    async def do() -> losses.Skipped:
        async with _opened(application) as scene:
            return await losses.skip(scene.loss, shard, owner=running.unique_name("skip"), reason=reason)

    done = asyncio.run(do())
    say(
        f"shard {shard}: counted up to {done.after:,} (was {done.before:,}); {done.from_archive:,} records from the archive, "
        f"{done.lost:,} lost",
        json=json,
    )
    console.result({"application": application, **asdict(done), "reason": reason})


@app.command()
def archive(*, application: Application = "ranking", json: JsonOnly = False) -> None:
    """Archive all that the log has now, without waiting for a worker to do it."""

    async def do() -> tuple[int, dict[int, int]]:
        async with _opened(application) as scene:
            chosen = settings()
            archiver = Archiver(
                scene.log, scene.archive, records=chosen.archive_records, seconds=chosen.archive_seconds
            )
            return await archiver.once(at_once=True), archiver.ends

    records, ends = asyncio.run(do())
    say(f"{application}: {records:,} records archived", json=json)
    console.result({"application": application, "records": records, "archived": ends})


@app.command()
def consumers(*, application: Application = "ranking", json: JsonOnly = False) -> None:
    """Who reads the log besides worker and archive, and how far behind each is: what they have yet to read is not trimmed."""

    async def ask() -> dict[str, int]:
        async with _opened(application) as scene:
            return await Consumers(scene.client, scene.application).lags(scene.log)

    found = asyncio.run(ask())
    for name, lag in found.items():
        say(f"{name}: {lag:,} records behind", json=json)
    result_for_machines({"application": application, "consumers": found}, wanted=json)


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="as `consumers` shows it")],
    *,
    application: Application = "ranking",
    json: JsonOnly = False,
) -> None:
    """Forget a reader that is gone for good: it holds up the trimming no more, and finds records lost if it comes back."""

    async def do() -> None:
        async with _opened(application) as scene:
            await Consumers(scene.client, scene.application).forget(name)

    asyncio.run(do())
    say(f"{name} is forgotten", json=json)
    console.result({"application": application, "forgotten": name})


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the commands look at. log_client: of the Redis that holds the log, None where Kafka does."""

    application: ApplicationName
    plan: FeaturePlan
    client: redis.asyncio.Redis
    log: EventLog
    archive: Storage
    log_client: redis.asyncio.Redis | None
    horizon: int

    @property
    def loss(self) -> losses.Scene:
        store = StateStore(self.client, self.application, self.plan)
        terms = StateTerms(self.client, self.application)
        return losses.Scene(
            self.application, self.log, store, terms, self.archive, self.plan, self.horizon, self.log_client
        )


@asynccontextmanager
async def _opened(application: str) -> AsyncIterator[_Scene]:
    of, chosen = schema_of(application).application, settings()
    client, log = _client(chosen.redis_url.get_secret_value()), open_log(chosen, of, timeout_s=running.TIMEOUT_S)
    log_client = _client(chosen.log_redis_url.get_secret_value()) if chosen.event_log == "redis" else None
    try:
        yield _Scene(
            of, plan_of(of), client, log, archive_of(chosen.store, of), log_client, chosen.log_duplicate_horizon
        )
    finally:
        await log.close()
        await client.aclose()
        if log_client is not None:
            await log_client.aclose()


@asynccontextmanager
async def _answers(application: ApplicationName) -> AsyncIterator[RedisDecisionLog]:
    """The log of answers, which is in Redis wherever that of events is."""
    chosen = settings()
    client = _client(chosen.log_redis_url.get_secret_value())
    try:
        yield RedisDecisionLog(client, keys.decision_log(application), kept=chosen.decisions_kept)
    finally:
        await client.aclose()


def _client(url: str) -> redis.asyncio.Redis:
    return serving_client(url, timeout_s=running.TIMEOUT_S)


if __name__ == "__main__":
    console.run(app)
