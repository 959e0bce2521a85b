"""python -m infra.snapshots: what an operator does to versions: open, load, try, promote or decline, roll back; and look."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Annotated

import typer

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.break_glass import PASSABLE
from infra.contracts.errors import InvalidRequest
from infra.contracts.ids import version_name
from infra.contracts.snapshots import Alias
from infra.experiments import commands as experiments
from infra.snapshots import decisions, looking
from infra.snapshots.decisions import BreakGlass
from infra.snapshots.promotion import Promotion
from infra.snapshots.retention import Kept, prune
from infra.snapshots.serving_copy import LoadReport
from infra.snapshots.shell import (
    Actor,
    Application,
    JsonOnly,
    Reason,
    VersionOption,
    describe,
    progress,
    promotion_of,
    say,
)
from infra.snapshots.versions import SnapshotStore, Version

PastChecks = Annotated[
    bool,
    typer.Option(
        "--break-glass",
        help="past failed checks: for those whom HEADGATE_BREAK_GLASS_USERS names, with a reason; it is recorded",
    ),
]

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command("open")
def open_version(*, application: Application = "ranking", actor: Actor = "") -> None:
    """Allocate the next version for a build, and note the generation: its flip is fenced by that."""
    with promotion_of(application) as promotion:
        version = promotion.open(actor=_by(actor))
        console.result({"version": version.version, "generation": version.generation_at_start})


@app.command()
def load(
    *,
    version: VersionOption,
    application: Application = "ranking",
    break_glass: PastChecks = False,
    actor: Actor = "",
    reason: Annotated[str, typer.Option(help="why, where failed checks are passed")] = "",
    json: JsonOnly = False,
) -> None:
    """Load a validated version's serving copy into Redis; refused before a key is written where it would not fit."""
    with promotion_of(application) as promotion:
        target = promotion.store.get(version)
        if break_glass:
            _pass_checks(target, actor=_by(actor), reason=reason, json=json)
        report = _load(promotion, target, json=json)
        console.result({"version": target.version, **asdict(report)})


@app.command()
def promote(
    *,
    version: VersionOption,
    application: Application = "ranking",
    actor: Actor = "",
    reason: Reason = "promoted by hand",
    force: Annotated[
        bool, typer.Option("--force", help="promote although something else went live since the build began")
    ] = False,
    break_glass: PastChecks = False,
    json: JsonOnly = False,
) -> None:
    """Put a validated, loaded version live: journalled, then flipped. A build that began before a rollback is fenced.

    With --break-glass a refused version goes live past its failed checks (only those with which it can be served): recorded as
    such, loaded, and flipped whatever went live since its build began.
    """
    with promotion_of(application) as promotion:
        started = monotonic()
        before, target, by = promotion.alias.read(), promotion.store.get(version), _by(actor)
        passed: tuple[str, ...] = ()
        if break_glass:
            broken = _pass_checks(target, actor=by, reason=reason, json=json)
            _load(promotion, target, json=json)
            passed, reason = broken.checks, broken.reason
        alias = promotion.flip(target, actor=by, reason=reason, force=force or break_glass)
        _tell_move(application, before, alias, seconds=monotonic() - started, json=json, passed=passed)


@app.command()
def decline(
    *,
    version: VersionOption,
    reason: Annotated[str, typer.Option(help="why, for the records")],
    application: Application = "ranking",
    actor: Actor = "",
) -> None:
    """Record that a validated version was not let go live; it stays VALIDATED and may be promoted on purpose."""
    target = SnapshotStore(settings().store, application_spec(application).name).get(version)
    decisions.decline(target, actor=_by(actor), reason=reason)
    console.result({"version": target.version, "state": target.state(), "actor": _by(actor), "reason": reason})


@app.command()
def rollback(
    *,
    reason: Annotated[str, typer.Option(help="why, for the records and for whoever is on call next")],
    version: Annotated[str, typer.Option(help="the version to go to; the default is the one before the live one")] = "",
    application: Application = "ranking",
    actor: Actor = "",
    json: JsonOnly = False,
) -> None:
    """Put an earlier (or any named, once validated) version live within seconds."""
    if not reason.strip():
        raise InvalidRequest("The reason is empty; wanted a few words for the records.", mend="Use --reason '...'")
    wanted = version_name(version) if version else None
    with promotion_of(application) as promotion:
        started = monotonic()
        before, after = promotion.rollback(
            wanted, actor=_by(actor), reason=reason, limit_fraction=settings().memory_limit_fraction
        )
        _tell_move(application, before, after, seconds=monotonic() - started, json=json)


@app.command()
def reload(*, application: Application = "ranking", json: JsonOnly = False) -> None:
    """Rebuild what Redis lost: the live version's copy from its files, the alias from the journal, then the version before."""
    with promotion_of(application) as promotion:
        with progress(f"reload {application}", total=None, json=json) as advance:
            done = promotion.reload(limit_fraction=settings().memory_limit_fraction, advance=advance)
        rows = {}
        for version, report in done.loads.items():
            per_s = round(report.users / report.seconds) if report.seconds and not report.already_loaded else None
            rows[version] = asdict(report) | {"users_per_s": per_s}
            how = "was there" if report.already_loaded else f"{report.users:,} users in {report.seconds:.1f} s"
            say(f"{application}/{version}: {how}{f', {per_s:,} a second' if per_s else ''}", json=json)
        moved = done.before.alias != done.after.alias
        say(f"{application}: {describe(done.after.alias)}{'' if moved else ' (as before)'}", json=json)
        if done.after.problem:
            say(f"{application}: {done.after.problem}", json=json)
        console.result(
            {
                "application": application,
                "moved": moved,
                "live": asdict(done.after.alias) if done.after.alias else None,
                "problem": done.after.problem,
                "loads": rows,
            }
        )


@app.command()
def gc(
    *,
    application: Application = "ranking",
    keep: Annotated[int | None, typer.Option(min=2, help="versions to leave in Redis; default: the setting")] = None,
    json: JsonOnly = False,
) -> None:
    """Delete the serving copies that nobody reads and no rollback will want soon, and what the store need not keep any longer."""
    chosen = settings()
    kept = Kept(chosen.keep_snapshots, chosen.keep_flips, timedelta(days=chosen.keep_days))
    with promotion_of(application) as promotion:
        deleted = promotion.collect(keep=keep or chosen.keep_versions)
        pruned = prune(promotion, kept, now=datetime.now(UTC))
        for name, n_keys in deleted.items():
            say(f"{application}/{name}: {n_keys:,} keys deleted from Redis", json=json)
        for name in pruned.snapshots:
            say(f"{application}/{name}: deleted from the store, it was past its {chosen.keep_days:g} days", json=json)
        fields = {"application": application, "deleted": deleted, "loaded": promotion.loaded()}
        console.result({**fields, "pruned": asdict(pruned)})


app.add_typer(experiments.app, name="canary")
app.command()(experiments.guard)
app.command("list")(looking.list_versions)
app.command()(looking.show)
app.command()(looking.status)
app.command()(looking.history)
app.command()(looking.diff)
app.command()(looking.verify)
app.command()(looking.freshness)


def _by(actor: str) -> str:
    return actor or getpass.getuser()


def _load(promotion: Promotion, target: Version, *, json: bool) -> LoadReport:
    title, users = f"load {target.label}", target.manifest().counts.get("users")
    with progress(title, total=users, json=json) as advance:
        report = promotion.load(target, limit_fraction=settings().memory_limit_fraction, advance=advance)
        if report.already_loaded:
            advance(report.users)
            say(f"{target.label} was loaded already", json=json)
    return report


def _pass_checks(target: Version, *, actor: str, reason: str, json: bool) -> BreakGlass:
    broken = decisions.break_glass(target, actor=actor, reason=reason, permitted=settings().may_break_glass)
    for check in broken.checks:
        say(f"{target.label}: {actor} passes the failed check {check}: {PASSABLE[check]}", json=json)
    return broken


def _tell_move(
    application: str,
    before: Alias | None,
    after: Alias,
    *,
    seconds: float,
    json: bool,
    passed: tuple[str, ...] = (),
) -> None:
    moved = before is None or before.generation != after.generation
    say(f"{application}: {describe(before)}", json=json)
    say(f"     -> {describe(after)}" if moved else "     -> nothing to change", json=json)
    console.result(
        {
            "application": application,
            "moved": moved,
            "version": after.version,
            "generation": after.generation,
            "before": asdict(before) if before else None,
            "after": asdict(after),
            "passed_checks": passed,
            "seconds": round(seconds, 3),
        }
    )


if __name__ == "__main__":
    console.run(app)
