"""looking: the commands that look at versions and move none: list, show, status, history, diff, verify, freshness."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from infra.config import console
from infra.config.settings import settings
from infra.contracts.errors import SnapshotNotLoaded
from infra.contracts.ids import version_name
from infra.contracts.snapshots import Alias, Target
from infra.snapshots.diff import compare
from infra.snapshots.drawn import show_difference
from infra.snapshots.promotion import Promotion
from infra.snapshots.shell import (
    Application,
    JsonOnly,
    describe,
    describe_canary,
    progress,
    promotion_of,
    result_for_machines,
    say,
    told_age,
)
from infra.snapshots.versions import Version

Newest = Annotated[int, typer.Option(min=1, help="how many, newest first")]


def list_versions(*, application: Application = "ranking", newest: Newest = 20, json: JsonOnly = False) -> None:
    """Versions with state, age, size on the store, readers; which are loaded, which is live, which a canary."""
    with promotion_of(application) as promotion:
        rows = _rows(promotion, newest=newest)
    _show_versions(rows, json=json)
    result_for_machines({"application": application, "versions": rows}, wanted=json)


def status(*, application: Application = "ranking", newest: Newest = 20, json: JsonOnly = False) -> None:
    """What is live, whether alias and journal agree, and the versions."""
    with promotion_of(application) as promotion:
        standing, rows = promotion.flips.look(), _rows(promotion, newest=newest)
    say(f"{application}: {describe(standing.alias)}", json=json)
    if standing.canary is not None:
        say(f"{application}: {describe_canary(standing.canary)}", json=json)
    if standing.problem:
        say(f"{application}: {standing.problem}", json=json)
    _show_versions(rows, json=json)
    fields: dict[str, object] = {
        "application": application,
        "live": asdict(standing.alias) if standing.alias else None,
        "journal": asdict(standing.tip) if standing.tip else None,
        "generation": standing.generation,
        "problem": standing.problem,
        "versions": rows,
    }
    result_for_machines(fields, wanted=json)


def show(
    version: Annotated[str, typer.Argument(help="a version, such as v12")],
    *,
    application: Application = "ranking",
    json: JsonOnly = False,
) -> None:
    """All about one version (`show v12`): its counts and parts, its copy in Redis, its states."""
    with promotion_of(application) as promotion:
        target = promotion.store.get(version)
        fields: dict[str, object] = {"application": application, **_row(target, promotion.alias.read())}
        fields["copy"] = promotion.copy_of(target).marker()
        if target.sealed:
            manifest = target.manifest()
            names = ("digest", "dataset", "generation_at_start", "embedder", "dim", "candidates_per_user", "counts")
            fields |= {name: getattr(manifest, name) for name in names}
            fields["ranker"] = manifest.ranker.metrics
            fields["parts"] = {
                name: {"rows": part.rows, "files": len(part.files), "bytes": part.bytes}
                for name, part in manifest.parts.items()
            }
        fields["states"] = [asdict(record) for record in target.history()]
    if not json:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in fields.items():
            for at, line in enumerate(_lines(value)):
                table.add_row("" if at else name, Text(line))  # a reason is anybody's text, and no markup
        console.notes.print(table)
    result_for_machines(fields, wanted=json)


def history(
    *,
    application: Application = "ranking",
    version: Annotated[str, typer.Option(help="only this version")] = "",
    newest: Annotated[int, typer.Option(min=1, help="how many flips")] = 50,
    json: JsonOnly = False,
) -> None:
    """Every flip by its generation, then every state that every version passed: when, by whom, why."""
    with promotion_of(application) as promotion:
        names = [version_name(version)] if version else promotion.store.versions()
        records = [(name, record) for name in names for record in promotion.store.get(name).history()]
        flips = [pair for pair in promotion.flips.journal.newest(newest) if not version or pair[0].subject in names]
        went_live = promotion.flips.look().path
    records.sort(key=lambda pair: pair[1].at)
    flips.reverse()
    if not json:
        console.say(f"{application}: {_way_back(went_live)}")
        _show_records(
            "generation",
            [
                (
                    record.at,
                    str(record.generation),
                    f"{record.subject} {'void' if void else record.kind}",
                    record.actor,
                    f"{record.reason} (void: {void.reason})" if void else record.reason,
                )
                for record, void in flips
            ],
        )
        _show_records(
            "version", [(record.at, name, record.state, record.actor, record.reason) for name, record in records]
        )
    fields: dict[str, object] = {
        "application": application,
        "live_path": [target.version for target in went_live],
        "flips": [asdict(record) | {"void": asdict(void) if void else None} for record, void in flips],
        "records": [{"version": name, **asdict(record)} for name, record in records],
    }
    result_for_machines(fields, wanted=json)


def diff(
    before: Annotated[str, typer.Argument(help="the older version")],
    after: Annotated[str, typer.Argument(help="the newer version")],
    *,
    application: Application = "ranking",
    users: Annotated[
        int, typer.Option(min=1, help="how many users to compare, drawn by the hash of their id")
    ] = 20_000,
    json: JsonOnly = False,
) -> None:
    """What users would notice between two versions (`diff v12 v13`): coverage, overlap of lists, shifts of score and popularity."""
    with promotion_of(application) as promotion:
        found = compare(promotion.store.get(before), promotion.store.get(after), users=users)
    if not json:
        show_difference(found)
    result_for_machines({"application": application, **asdict(found)}, wanted=json)


def verify(
    *,
    version: Annotated[str, typer.Option(help="a version; the default is the live one and the one before it")] = "",
    application: Application = "ranking",
    json: JsonOnly = False,
) -> None:
    """Compare every file with the manifest, and every record in Redis with its sealed digest; exit code 1 at a difference."""
    rows: dict[str, object] = {}
    with promotion_of(application) as promotion:
        standing = promotion.flips.look()
        wanted = [version_name(version)] if version else [target.version for target in standing.path[-2:]]
        for name in wanted:
            target = promotion.store.get(name)
            users = target.manifest().counts.get("users")
            with progress(f"verify {target.label}", total=users, json=json) as advance:
                copy = promotion.verify(target, advance=advance)
            if copy is None and standing.live is not None and name == standing.live.version:
                raise SnapshotNotLoaded(
                    f"{target.label} is live and not in Redis.", mend="Run: python -m infra.snapshots reload"
                )
            rows[name] = asdict(copy) if copy else None
            told = f"{copy.keys:,} records in Redis" if copy else "not in Redis"
            say(f"{target.label}: files as sealed, {told}{' as sealed' if copy else ''}", json=json)
        if standing.problem and not standing.ahead:
            raise SnapshotNotLoaded(f"{application}: {standing.problem}.")
    console.result({"application": application, "verified": rows})


def freshness(*, application: Application = "ranking", json: JsonOnly = False) -> None:
    """The live snapshot's age; exit code 1 where it is older than the freshness SLO, or where none is live."""
    slo, now = timedelta(hours=settings().freshness_slo_hours), datetime.now(UTC)
    with promotion_of(application) as promotion:
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
            say(f"{application}: {live.version} is {told_age(age)} old, the SLO is {told_age(slo)}", json=json)


def _rows(promotion: Promotion, *, newest: int) -> list[dict[str, object]]:
    live, loaded, readers = promotion.alias.read(), set(promotion.loaded()), promotion.leases.readers()
    return [
        {
            **_row(promotion.store.get(name), live),
            "loaded": name in loaded,
            "readers": readers[name],
        }
        for name in promotion.store.versions()[-newest:]
    ]


def _row(version: Version, live: Alias | None) -> dict[str, object]:
    row: dict[str, object] = {"version": version.version, "state": version.state()}
    row["live"] = live is not None and live.version == version.version
    canary = live.canary if live is not None else None
    row["canary_fraction"] = canary.fraction if canary is not None and canary.version == version.version else None
    if not version.sealed:
        return row | {"created_at": None, "age": None, "users": None, "items": None, "bytes": None}
    manifest = version.manifest()
    return row | {
        "created_at": manifest.created_at,
        "age": told_age(datetime.now(UTC) - manifest.created_at),
        "users": manifest.counts.get("users"),
        "items": manifest.counts.get("items"),
        "bytes": sum(part.bytes for part in manifest.parts.values()),
    }


def _show_versions(rows: list[dict[str, object]], *, json: bool) -> None:
    if json:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("version", "state", "age", "users", "items", "MiB", "readers", "loaded", "live"):
        numeric = column in {"age", "users", "items", "MiB", "readers"}
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in reversed(rows):
        size = row["bytes"]
        cells = [row[name] for name in ("version", "state", "age", "users", "items")]
        cells += [size / 2**20 if isinstance(size, int) else None, row["readers"]]
        share = f"canary {row['canary_fraction']:.3g}" if row["canary_fraction"] else "-"
        marks = "yes" if row["loaded"] else "-", "LIVE" if row["live"] else share
        table.add_row(*map(_cell, cells), *marks)
    console.notes.print(table if rows else "no version has been built yet. Run: make snapshot")


def _show_records(second: str, rows: list[tuple[datetime, str, str, str, str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    third = "flip" if second == "generation" else "state"
    for column in ("at (UTC)", second, third, "by", "reason"):
        table.add_column(column, no_wrap=column not in {"by", "reason"}, overflow="fold")
    for at, *cells in rows:
        table.add_row(f"{at:%Y-%m-%d %H:%M:%S}", *map(Text, cells))  # a reason is anybody's text, and no markup
    if rows:
        console.notes.print(table)


def _way_back(went_live: tuple[Target, ...]) -> str:
    if not went_live:
        return "no version is live"
    *before, live = (target.version for target in went_live)
    before.reverse()
    return f"{live} is live; a rollback goes to {', then '.join(before) or 'nothing: there is none before it'}"


def _lines(value: object) -> list[str]:
    """A value as lines: a dict's items, a list's entries, or the value itself."""
    if isinstance(value, dict):
        return [f"{name}: {', '.join(_lines(part))}" for name, part in value.items()] or ["-"]
    if isinstance(value, list):
        return ["  ".join(map(_cell, row.values())) for row in value] or ["-"]
    return [_cell(value)]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")
