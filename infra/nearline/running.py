"""running: one process of the nearline worker: it counts, archives and trims until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass

from infra.catalog.features.nearline import plan_of
from infra.config.settings import Settings
from infra.contracts.ids import ApplicationName
from infra.eventlog.decisions import RedisDecisionLog
from infra.nearline.archive import Archiver, archive_of
from infra.nearline.decision_archive import DecisionArchiver
from infra.nearline.members import Members
from infra.nearline.opening import open_log
from infra.nearline.state import StateStore
from infra.nearline.state_terms import StateTerms
from infra.nearline.trimming import Consumers, Trimmer
from infra.nearline.worker import Progress, Worker
from infra.snapshots import keys
from infra.snapshots.connection import serving_client

TIMEOUT_S = 5.0
"""Of a call to Redis: far more than one takes, and less than an operator's patience."""

_log = logging.getLogger("headgate.nearline")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process did. name: as the claims had it."""

    name: str
    progress: Progress


def unique_name(prefix: str) -> str:
    """A worker's name, never used twice: `host-1f3c9a2e`."""
    return f"{prefix or socket.gethostname()}-{uuid.uuid4().hex[:8]}"


async def run(chosen: Settings, application: ApplicationName, *, name: str, count: bool, archive: bool) -> Ended:
    """Work until SIGTERM or SIGINT; what was read is applied before it returns.

    count: whether it counts; not where Spark's stream does. archive: whether this process also archives events and answers, and
    trims; one of an application's processes must. Raises LogLost where events are gone, once everything else has come to rest;
    OperatorError where the settings cannot be.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = serving_client(chosen.redis_url.get_secret_value(), timeout_s=TIMEOUT_S)
    answers_client = serving_client(chosen.log_redis_url.get_secret_value(), timeout_s=TIMEOUT_S)
    log, archived_log = (open_log(chosen, application, timeout_s=TIMEOUT_S) for _ in range(2))
    plan, horizon = plan_of(application), chosen.log_duplicate_horizon
    store = StateStore(client, application, plan)
    try:
        members, terms = Members(client, application, name), StateTerms(client, application)
        worker = Worker(log, store, plan, members, terms=terms, name=name, horizon=horizon)
        parts: list[Coroutine[object, object, None]] = [worker.run(stop)] if count else []
        if archive:
            files = archive_of(chosen.store, application)
            trimmer = Trimmer(
                archived_log,
                store,
                files,
                Consumers(client, application),
                terms,
                kept_records=chosen.log_kept_records,
                horizon=horizon,
            )
            archiver = Archiver(archived_log, files, records=chosen.archive_records, seconds=chosen.archive_seconds)
            answers = DecisionArchiver(
                RedisDecisionLog(answers_client, keys.decision_log(application), kept=chosen.decisions_kept),
                files,
                records=min(chosen.archive_records, chosen.decisions_kept // 4),
                seconds=chosen.archive_seconds,
            )
            parts += [archiver.run(stop), trimmer.run(stop), answers.run(stop)]
        does = [what for what, wanted in (("counts", count), ("archives", archive)) if wanted]
        _log.info("%s %s the events of %s", name, " and ".join(does), application)
        gc.collect()
        gc.freeze()  # a collection walks what was loaded at the start again and again: 29 % of a busy worker's time
        outcomes = await asyncio.gather(*(_until_any_ends(part, stop) for part in parts), return_exceptions=True)
    finally:
        await log.close()
        await archived_log.close()
        await client.aclose()
        await answers_client.aclose()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return Ended(name, worker.progress)


async def _until_any_ends(part: Coroutine[object, object, None], stop: asyncio.Event) -> None:
    """Where one part ends, by an error or not, the others stop too: half a process would look like a whole one."""
    try:
        await part
    except Exception as error:
        _log.critical("STOPPED: %s: %s", type(error).__name__, error)
        raise
    finally:
        stop.set()
