"""shell: what the commands on versions share: their options, a Redis that answers, and how versions and flips are told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Annotated

import redis
import typer

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.errors import DependencyUnavailable
from infra.contracts.snapshots import Alias
from infra.snapshots.connection import address, batch_client, require
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore

Application = Annotated[str, typer.Option(help="which application's snapshots")]
VersionOption = Annotated[str, typer.Option(help="a version, such as v12 or predictions_v12")]
Actor = Annotated[str, typer.Option(help="by whose hand, for the records; the default is the system's user")]
Reason = Annotated[str, typer.Option(help="why, for the records")]
JsonOnly = Annotated[bool, typer.Option("--json", help="nothing for people, only the JSON object on stdout")]


@contextmanager
def promotion_of(application: str) -> Iterator[Promotion]:
    """The application's versions with a Redis that answers; what Redis refuses later becomes an error with a mend."""
    spec = application_spec(application)
    url = settings().redis_url.get_secret_value()
    with batch_client(url) as client:
        require(client, url=url)
        try:
            yield Promotion(SnapshotStore(settings().store, spec.name), client)
        except redis.exceptions.RedisError as error:
            raise DependencyUnavailable(
                f"Redis at {address(url)} failed in the middle of the command ({type(error).__name__}: {error}).",
                mend="Run the command again: every one of them may be repeated. If it stays so: make status",
            ) from error


def say(text: str, *, json: bool) -> None:
    """A note to whoever watches, unless only the JSON is wanted."""
    if not json:
        console.say(text)


def progress(title: str, *, total: int | None, json: bool) -> AbstractContextManager[Callable[[int], None]]:
    """The console's progress, unless only the JSON is wanted."""
    return nullcontext(lambda n: None) if json else console.progress(title, total=total)


def result_for_machines(fields: dict[str, object], *, wanted: bool) -> None:
    """Someone at a terminal has read the table and is spared the JSON."""
    if wanted or not sys.stdout.isatty():
        console.result(fields)


def describe(alias: Alias | None) -> str:
    """What is live, since when, by whose hand and why, in one line."""
    if alias is None:
        return "no version is live"
    at = f"{alias.flipped_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{alias.version} live since {at}, generation {alias.generation}, by {alias.actor}: {alias.reason}"


def describe_canary(canary: Canary | None) -> str:
    """What runs beside what is live, for how many users, since when, by whose hand."""
    if canary is None:
        return "no canary runs"
    whom = "shown to" if canary.mode is CanaryMode.CANARY else "a shadow, scored unseen for"
    since = f"{canary.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{canary.version} {whom} {canary.fraction:.4g} of the users since {since}, by {canary.started_by}"


def told_age(age: timedelta) -> str:
    """An age as people say it: `90 s`, `15 min`, `12.5 h`, `4.0 d`."""
    if age < timedelta(minutes=2):
        return f"{age.total_seconds():.0f} s"
    if age < timedelta(hours=2):
        return f"{age / timedelta(minutes=1):.0f} min"
    return f"{age / timedelta(hours=1):.1f} h" if age < timedelta(days=3) else f"{age / timedelta(days=1):.1f} d"
