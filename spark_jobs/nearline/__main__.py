"""python -m spark_jobs.nearline: the nearline features by Spark: the archive counted anew, and Kafka as it comes."""

from __future__ import annotations

import asyncio
import json as json_text
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from infra.catalog.events import schema_of
from infra.catalog.features.nearline import plan_of
from infra.config import console
from infra.config.settings import Settings, settings
from infra.contracts.errors import InvalidRequest, OperatorError
from infra.contracts.events import SHARDS
from infra.contracts.ids import ApplicationName
from infra.eventlog.kafka import kafka_options
from infra.eventlog.terms import holds_upto
from infra.nearline.archive import archive_of, read_upto
from infra.nearline.moments import microseconds, moment_or_none
from infra.nearline.opening import open_log
from infra.nearline.resuming import resume, seen_before
from infra.nearline.running import TIMEOUT_S, unique_name
from infra.snapshots.connection import serving_client
from infra.snapshots.shell import JsonOnly, say
from spark_jobs.nearline import replay as replaying
from spark_jobs.nearline import restore as restoring
from spark_jobs.nearline import stream as streaming
from spark_jobs.session import running

Application = Annotated[str, typer.Option(help="whose events")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command()
def replay(
    *,
    application: Application = "ranking",
    upto: Annotated[
        str, typer.Option(help="a JSON file of offsets by shard, or what `infra.nearline digest` printed; default: all")
    ] = "",
    now: Annotated[str, typer.Option(help="the digests' moment, such as 2026-05-01T12:00:00Z; default: now")] = "",
    restore: Annotated[
        bool, typer.Option("--restore", help="write the state into the Redis that lost it; stop the workers before")
    ] = False,
    json: JsonOnly = False,
) -> None:
    """Count the whole archive anew: a digest a shard, equal to `python -m infra.nearline digest` at the same offsets and moment.

    With --restore the state goes into Redis, and a log in Redis that lost its memory goes on behind the archive. Run it again
    where it was stopped half way.
    """
    of, chosen = schema_of(application).application, settings()
    moment = moment_or_none(now, flag="--now") or datetime.now(UTC)
    if restore and upto:
        raise InvalidRequest("--restore takes all of the archive; it goes without --upto.")
    archive, plan = archive_of(chosen.store, of), plan_of(of)
    offsets = _offsets(upto) if upto else None
    source = replaying.source_of(archive, plan, horizon=chosen.log_duplicate_horizon, upto=offsets)
    lost = replaying.lost_offsets(source)
    for shard, number in lost.items():
        say(f"shard {shard}: {number:,} offsets were lost before they were archived", json=json)
    fields: dict[str, object] = {"application": of, "now": moment.isoformat(), "offsets": source.upto, "lost": lost}
    now_us = microseconds(moment)
    target = _target(chosen, of, source, now_us) if restore else None
    with running(f"nearline replay {of}") as spark:
        states = replaying.states(spark, source).cache()
        if target is not None:
            moved = asyncio.run(_resume(chosen, of, source))
            entities = restoring.restore(states, target)
            fields |= {"entities": entities, "moved": moved}
            say(f"{of}: {sum(entities.values()):,} entities restored", json=json)
        found = replaying.digests(states, plan, now_us)
    for shard, value in found.items():
        say(f"{shard:2d} at {source.upto[shard]:,}: {value}", json=json)
    console.result({**fields, "digests": found})


@app.command()
def stream(*, application: Application = "ranking") -> None:
    """Count Kafka's events as they come, in place of the workers, until SIGTERM or Ctrl-C; its checkpoint lies in HEADGATE_HOME.

    It neither archives nor trims: run `python -m infra.nearline run --no-count` beside it.
    """
    of, chosen = schema_of(application).application, settings()
    if chosen.event_log != "kafka":
        raise OperatorError("The stream reads Kafka; the log is in Redis.", mend="Set HEADGATE_EVENT_LOG=kafka.")
    work = streaming.Work(
        application=of,
        plan=plan_of(of),
        horizon=chosen.log_duplicate_horizon,
        redis_url=chosen.redis_url.get_secret_value(),
        bootstrap=chosen.kafka_bootstrap,
        options=kafka_options(chosen.kafka_config.get_secret_value()),
        owner=unique_name("stream"),
    )
    streaming.with_connector(chosen.home.resolve() / "tools" / "kafka" / "spark")
    with running(f"nearline stream {of}") as spark:
        query = streaming.start(spark, work, checkpoint=str(chosen.home.resolve() / "nearline-stream" / of))
        console.say(f"{work.owner} counts the events of {of}")
        streaming.run(query)
    console.result({"application": of, "name": work.owner})


def _target(chosen: Settings, application: ApplicationName, source: replaying.Source, now_us: int) -> restoring.Target:
    """Where the state goes; raises OperatorError where that is not empty."""
    url = chosen.redis_url.get_secret_value()
    target = restoring.Target(url, application, source.plan, source.upto, unique_name("restore"), now_us, {})
    asyncio.run(restoring.require_empty(target))
    if chosen.event_log == "redis":
        return target
    seen = {
        shard: seen_before(source.archive, shard, upto=offset, horizon=source.horizon)
        for shard, offset in source.upto.items()
    }
    return replace(target, seen=seen)


async def _resume(chosen: Settings, application: ApplicationName, source: replaying.Source) -> dict[int, int]:
    """By shard, how many records that came since the loss went behind the archive."""
    log = open_log(chosen, application, timeout_s=TIMEOUT_S)
    client = serving_client(chosen.log_redis_url.get_secret_value(), timeout_s=TIMEOUT_S)
    try:
        if chosen.event_log == "kafka":
            for shard, extent in (await log.extents(range(SHARDS))).items():
                term = (await asyncio.to_thread(read_upto, source.archive, shard)).term
                if holds_upto(extent.terms, term, extent.tip) < source.upto[shard]:
                    raise OperatorError(
                        f"Shard {shard} of the topic ends at {extent.tip}, the archive at {source.upto[shard]}: the topic was "
                        "made anew.",
                        mend="Bring the topic back, or begin with an empty archive and an empty state.",
                    )
            return {}
        moved = {}
        for shard, offset in source.upto.items():
            moved[shard] = await resume(
                log, client, application, source.archive, shard, upto=offset, horizon=source.horizon
            )
        return {shard: number for shard, number in moved.items() if number}
    finally:
        await log.close()
        await client.aclose()


def _offsets(path: str) -> dict[int, int]:
    try:
        said = json_text.loads(Path(path).read_text())
        offsets = {int(shard): int(offset) for shard, offset in said.get("offsets", said).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InvalidRequest(f'--upto is {path!r}: {error}; wanted a file like {{"0": 120, "1": 98}}.') from error
    foreign = [shard for shard in offsets if not 0 <= shard < SHARDS]
    if foreign:
        raise InvalidRequest(f"--upto names shard {foreign[0]}; wanted 0 to {SHARDS - 1}.")
    return offsets


if __name__ == "__main__":
    console.run(app)
