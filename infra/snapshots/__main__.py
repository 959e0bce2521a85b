"""python -m infra.snapshots: what an operator does to versions: open, load, flip, roll back, look, collect, ask how fresh."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Annotated

import redis
import typer
from rich.table import Table
from rich.text import Text

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.errors import DependencyUnavailable, InvalidRequest
from infra.contracts.ids import VersionName, version_name
from infra.contracts.snapshots import Alias
from infra.snapshots.connection import address, batch_client, require
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore, Version

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Application = Annotated[str, typer.Option(help="which application's snapshots")]
VersionOption = Annotated[str, typer.Option(help="a version, such as v12 or predictions_v12")]
Actor = Annotated[str, typer.Option(help="by whose hand, for the records; the default is the system's user")]
Reason = Annotated[str, typer.Option(help="why, for the records")]
JsonOnly = Annotated[bool, typer.Option("--json", help="no table, only the JSON object on stdout")]


@app.command("open")
def open_version(*, application: Application = "ranking", actor: Actor = "") -> None:
    """Allocate the next version for a build, and note the alias's generation: its flip is fenced by that."""
    with _promotion(application) as promotion:
        version = promotion.open(actor=_by(actor))
        console.result({"version": version.version, "generation": version.generation_at_start})


@app.command()
def load(*, version: VersionOption, application: Application = "ranking") -> None:
    """Load a validated version's serving copy into Redis; refused before a key is written where it would not fit."""
    with _promotion(application) as promotion:
        target = promotion.store.get(version)
        title, users = f"load {target.label}", target.manifest().counts.get("users")
        with console.progress(title, total=users) as advance:
            report = promotion.load(target, limit_fraction=settings().memory_limit_fraction, advance=advance)
            if report.already_loaded:
                advance(report.users)
                console.say(f"{target.label} was loaded already")
        console.result({"version": target.version, **asdict(report)})


@app.command()
def flip(
    *,
    version: VersionOption,
    application: Application = "ranking",
    actor: Actor = "",
    reason: Reason = "flipped by hand",
    force: Annotated[bool, typer.Option("--force", help="flip although the alias moved since the build began")] = False,
) -> None:
    """Put a validated, loaded version live. Fenced: a build that began before a rollback does not undo it."""
    with _promotion(application) as promotion:
        started = monotonic()
        before = promotion.alias.read()
        alias = promotion.flip(promotion.store.get(version), actor=_by(actor), reason=reason, force=force)
        _tell_move(application, before, alias, seconds=monotonic() - started)


@app.command()
def rollback(
    *,
    reason: Annotated[str, typer.Option(help="why, for the records and for whoever is on call next")],
    version: Annotated[str, typer.Option(help="the version to go to; the default is the one before the live one")] = "",
    application: Application = "ranking",
    actor: Actor = "",
) -> None:
    """Put an earlier (or any named, once validated) version live within seconds."""
    if not reason.strip():
        raise InvalidRequest("The reason is empty; wanted a few words for the records.", mend="Use --reason '...'")
    wanted = version_name(version) if version else None
    with _promotion(application) as promotion:
        started = monotonic()
        before, after = promotion.rollback(
            wanted, actor=_by(actor), reason=reason, limit_fraction=settings().memory_limit_fraction
        )
        _tell_move(application, before, after, seconds=monotonic() - started)


@app.command()
def status(*, application: Application = "ranking", newest: int = 20, json: JsonOnly = False) -> None:
    """Versions with their state, age and size; which are loaded, which is live."""
    with _promotion(application) as promotion:
        live, loaded = promotion.alias.read(), set(promotion.loaded())
        names = promotion.store.versions()[-max(newest, 1) :]
        rows = [
            {
                **_version_row(promotion.store.get(name)),
                "loaded": name in loaded,
                "live": live is not None and live.version == name,
            }
            for name in names
        ]
    fields: dict[str, object] = {"application": application, "live": asdict(live) if live else None, "versions": rows}
    if not json:
        console.say(f"{application}: {_describe(live)}")
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("version", "state", "age", "users", "items", "loaded", "live"):
            table.add_column(column, justify="right" if column in {"age", "users", "items"} else "left")
        for row in reversed(rows):
            table.add_row(
                *(_cell(row[column]) for column in ("version", "state", "age", "users", "items")), *_marks(row)
            )
        console.notes.print(table if rows else "no version has been built yet. Run: make snapshot")
    _result_for_machines(fields, wanted=json)


@app.command()
def history(
    *,
    application: Application = "ranking",
    version: Annotated[str, typer.Option(help="only this version")] = "",
    json: JsonOnly = False,
) -> None:
    """Every state that every version passed: when, by whom, why."""
    with _promotion(application) as promotion:
        names = [version_name(version)] if version else promotion.store.versions()
        records = [(name, record) for name in names for record in promotion.store.get(name).history()]
        went_live = promotion.alias.history()
    records.sort(key=lambda pair: pair[1].at)
    if not json:
        console.say(f"{application}: {_way_back(went_live)}")
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("at (UTC)", "version", "state", "by", "reason"):
            table.add_column(column, no_wrap=column in {"at (UTC)", "version", "state"}, overflow="fold")
        for name, record in records:
            cells = (f"{record.at:%Y-%m-%d %H:%M:%S}", name, record.state, record.actor, record.reason)
            table.add_row(*(Text(cell) for cell in cells))  # a reason is anybody's text, and no markup
        console.notes.print(table)
    rows = [{"version": name, **asdict(record)} for name, record in records]
    _result_for_machines({"application": application, "live_path": went_live, "records": rows}, wanted=json)


@app.command()
def gc(
    *,
    application: Application = "ranking",
    keep: Annotated[int | None, typer.Option(min=2, help="versions to leave in Redis; default: the setting")] = None,
) -> None:
    """Delete the serving copies that no rollback will want soon; the snapshots themselves stay on the store."""
    with _promotion(application) as promotion:
        deleted = promotion.collect(keep=keep or settings().keep_versions)
        for name, n_keys in deleted.items():
            console.say(f"{application}/{name}: {n_keys:,} keys deleted from Redis")
        console.result({"application": application, "deleted": deleted, "loaded": promotion.loaded()})


@app.command()
def freshness(*, application: Application = "ranking") -> None:
    """The live snapshot's age; exit code 1 where it is older than the freshness SLO, or where none is live."""
    slo, now = timedelta(hours=settings().freshness_slo_hours), datetime.now(UTC)
    with _promotion(application) as promotion:
        live = promotion.alias.read()
        fields: dict[str, object] = {"application": application, "slo_hours": slo / timedelta(hours=1)}
        if live is None:
            console.result({**fields, "version": None, "age_hours": None, "fresh": False})
            promotion.require_fresh(now=now, slo=slo)
        else:
            age = promotion.require_fresh(now=now, slo=timedelta.max)
            hours = round(age / timedelta(hours=1), 3)
            console.result({**fields, "version": live.version, "age_hours": hours, "fresh": age <= slo})
            promotion.require_fresh(now=now, slo=slo)
            console.say(f"{application}: {live.version} is {_age(age)} old, the SLO is {_age(slo)}")


@contextmanager
def _promotion(application: str) -> Iterator[Promotion]:
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


def _by(actor: str) -> str:
    return actor or getpass.getuser()


def _tell_move(application: str, before: Alias | None, after: Alias, *, seconds: float) -> None:
    console.say(f"{application}: {_describe(before)}")
    moved = before is None or before.generation != after.generation
    console.say(f"     -> {_describe(after)}" if moved else "     -> nothing to change")
    console.result(
        {
            "application": application,
            "moved": moved,
            "version": after.version,
            "generation": after.generation,
            "before": asdict(before) if before else None,
            "after": asdict(after),
            "seconds": round(seconds, 3),
        }
    )


def _describe(alias: Alias | None) -> str:
    if alias is None:
        return "no version is live"
    at = f"{alias.flipped_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{alias.version} live since {at}, generation {alias.generation}, by {alias.actor}: {alias.reason}"


def _way_back(went_live: list[VersionName]) -> str:
    if not went_live:
        return "no version is live"
    *before, live = went_live
    before.reverse()
    return f"{live} is live; a rollback goes to {', then '.join(before) or 'nothing: there is none before it'}"


def _version_row(version: Version) -> dict[str, object]:
    row: dict[str, object] = {"version": version.version, "state": version.state()}
    if not version.sealed:
        return row | {"created_at": None, "age": None, "users": None, "items": None}
    manifest = version.manifest()
    age = _age(datetime.now(UTC) - manifest.created_at)
    counts = manifest.counts
    return row | {
        "created_at": manifest.created_at,
        "age": age,
        "users": counts.get("users"),
        "items": counts.get("items"),
    }


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value or "-")


def _marks(row: dict[str, object]) -> tuple[str, str]:
    return "yes" if row["loaded"] else "-", "LIVE" if row["live"] else "-"


def _age(age: timedelta) -> str:
    if age < timedelta(minutes=2):
        return f"{age.total_seconds():.0f} s"
    if age < timedelta(hours=2):
        return f"{age / timedelta(minutes=1):.0f} min"
    return f"{age / timedelta(hours=1):.1f} h" if age < timedelta(days=3) else f"{age / timedelta(days=1):.1f} d"


def _result_for_machines(fields: dict[str, object], *, wanted: bool) -> None:
    """Someone at a terminal has read the table and is spared the JSON."""
    if wanted or not sys.stdout.isatty():
        console.result(fields)


if __name__ == "__main__":
    console.run(app)
