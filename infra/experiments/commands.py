"""commands: python -m infra.snapshots canary start|status|decide|end, and guard."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.canaries import CanaryMode
from infra.contracts.errors import InvalidRequest, SnapshotError
from infra.contracts.ids import VersionName, version_name
from infra.contracts.snapshots import Alias
from infra.snapshots.connection import batch_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.shell import (
    Actor,
    Application,
    JsonOnly,
    Reason,
    VersionOption,
    describe_canary,
    promotion_of,
    result_for_machines,
    say,
)
from infra.snapshots.versions import Version

if TYPE_CHECKING:
    from infra.experiments.deciding import Decider, Running
    from infra.experiments.filing import CanaryResult
    from infra.experiments.ruling import Ruling

# What judges is imported where it is used: with it a rollback, which needs none of it, would begin 0.4 s later.

CANARY = "canary"
GUARD = "guard"
"""Who acts where no person did."""

Hours = Annotated[float | None, typer.Option(min=0.01, help="how long it may run; the default is the setting")]
EndedVersion = Annotated[str, typer.Option(help="a version, whose last canary is told where none runs any longer")]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Try a version on a fraction of the users before it goes live."
)


@app.command()
def start(
    *,
    version: VersionOption,
    application: Application = "ranking",
    fraction: Annotated[
        float | None, typer.Option(help="of the users, up to 0.5 (a shadow: 1); the default is the setting")
    ] = None,
    mode: Annotated[CanaryMode, typer.Option(help="whether users see it")] = CanaryMode.CANARY,
    actor: Actor = "",
    reason: Reason = "tried by hand",
    force: Annotated[
        bool, typer.Option("--force", help="although something else went live since the build began")
    ] = False,
    unless_live: Annotated[
        bool, typer.Option("--unless-live", help="end well where it is live already, and there is nothing to try")
    ] = False,
    json: JsonOnly = False,
) -> None:
    """Show a loaded version to a fraction of the users, or score their requests with it unseen; journalled, then flipped."""
    chosen = fraction if fraction is not None else settings().canary_fraction
    if not chosen:
        raise InvalidRequest(
            "No fraction was given, and HEADGATE_CANARY_FRACTION is 0: no users.", mend="Use --fraction 0.05"
        )
    with promotion_of(application) as promotion:
        target = promotion.store.get(version)
        live = promotion.flips.recover().live if unless_live else None
        if live is not None and live.version == target.version:
            say(f"{application}: {live.version} is live already", json=json)
            console.result({"application": application, "live": live.version, "canary": None})
            return
        alias = promotion.start_canary(target, chosen, mode, actor=_by(actor), reason=reason, force=force)
        say(f"{application}: {_describe(alias)}", json=json)
        console.result({"application": application, **_fields(alias)})


@app.command()
def status(*, application: Application = "ranking", hours: Hours = None, json: JsonOnly = False) -> None:
    """Look at what runs beside the live version, and move nothing."""
    from infra.experiments.deciding import Running
    from infra.experiments.filing import record_of

    with _decider(application, actor=CANARY) as (promotion, decider):
        alias = promotion.flips.look().live
        if alias is None or alias.canary is None:
            say(f"{application}: no canary runs", json=json)
            result_for_machines({"application": application, "verdict": "none"}, wanted=json)
            return
        say(f"{application}: {_describe(alias)}", json=json)
        ruling = decider.rule(Running(alias, alias.canary), hours=hours, now=datetime.now(UTC))
        _show(ruling, json=json)
        result_for_machines(record_of(ruling, pictures=False), wanted=json)


@app.command()
def decide(
    *,
    application: Application = "ranking",
    version: EndedVersion = "",
    generation: Annotated[
        int, typer.Option(help="the generation that `start` told, where a version was tried often")
    ] = 0,
    hours: Hours = None,
    actor: Actor = CANARY,
    json: JsonOnly = False,
) -> None:
    """Look once, and promote, roll back or end the canary where it is time: `verdict` is none where none runs.

    It may be repeated: with --version (and --generation), how that canary ended is told again after it has ended.
    """
    from infra.experiments.filing import record_of
    from infra.experiments.ruling import Ruling

    with _decider(application, actor=actor) as (promotion, decider):
        running = decider.running()
        wanted = version_name(version) if version else None
        if running is None or not _meant(running, wanted, generation):
            last = _ended(promotion.store.get(wanted), generation) if wanted else None
            say(f"{application}: {_told(last) if last else 'no canary runs'}", json=json)
            console.result({"application": application, "verdict": "none", **(_row(last, promotion) if last else {})})
            return
        found = decider.decide(running, hours=hours, now=datetime.now(UTC))
        if isinstance(found, Ruling):
            _show(found, json=json)
            console.result(record_of(found, pictures=False))
        else:
            say(f"{application}: {_told(found)}", json=json)
            console.result({"application": application, **_row(found, promotion)})


@app.command()
def end(
    *,
    reason: Annotated[str, typer.Option(help="why, for the records and for whoever is on call next")],
    version: Annotated[str, typer.Option(help="the version that is meant; the default is whichever runs")] = "",
    application: Application = "ranking",
    refused: Annotated[
        bool, typer.Option("--refused", help="record it as rolled back, not as undecided: it was worse")
    ] = False,
    actor: Actor = "",
    json: JsonOnly = False,
) -> None:
    """End what runs beside the live version, by hand: its users are shown what is live."""
    from infra.experiments.filing import file_ruling, overrule
    from infra.experiments.judgement import Verdict

    if not reason.strip():
        raise InvalidRequest("The reason is empty; wanted a few words for the records.", mend="Use --reason '...'")
    by = _by(actor)
    with _decider(application, actor=by) as (promotion, decider):
        running = decider.running()
        if running is None or not _meant(running, version_name(version) if version else None, 0):
            say(f"{application}: no canary{f' of {version}' if version else ''} runs", json=json)
            console.result({"application": application, "moved": False, "verdict": "none"})
            return
        target = promotion.store.get(running.canary.version)
        verdict, because = Verdict.ROLLED_BACK if refused else Verdict.ENDED, f"Ended by {by}: {reason}"
        filed = None
        try:
            ruling = decider.rule(running, hours=None, now=datetime.now(UTC))
            found = replace(ruling.found, verdict=verdict, because=because)
            filed = file_ruling(target, replace(ruling, found=found))
            if filed.because != because:  # another verdict was filed, and was not carried out
                filed = overrule(target, filed, verdict, because)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the logs, its users are rid of it
            say(f"{application}: how it did is not filed: {type(error).__name__}: {error}", json=json)
        alias = promotion.end_canary(running.canary.version, actor=by, reason=reason, refused=refused)
        say(f"{application}: {_told(filed) if filed else because}", json=json)
        row = _row(filed, promotion) if filed else {"version": target.version, "verdict": verdict, "because": because}
        console.result({"application": application, "moved": True, **row, **_fields(alias)})


def guard(*, application: Application = "ranking", actor: Actor = GUARD, json: JsonOnly = False) -> None:
    """Compare what users do since the newest flip with before it; a sure fall rolls back, or fails, by HEADGATE_GUARD_ACTION."""
    from infra.experiments.guard import GuardRules, watch, watched_flip
    from infra.experiments.reading import read_spans

    chosen, spec, now = settings(), application_spec(application), datetime.now(UTC)
    rules = GuardRules.of(chosen, spec)
    with promotion_of(application) as promotion:
        promotion.flips.recover()
        flip = watched_flip(promotion.flips.journal, watched=rules.watched, now=now)
        if flip is None:
            say(f"{application}: nothing went live within {chosen.guard_hours:g} hours", json=json)
            console.result({"application": application, "verdict": "none"})
            return
        since = flip.at - min(now - flip.at, rules.watched)
        spans = read_spans(chosen, spec, since=since, now=now)
        kept = [one for one in spans.exposures if one.at.timestamp() >= spans.kept_since_s]
        seen = watch(kept, spans.events, flip=flip, rules=rules, now=now)
        say(f"{application}: {seen.because}", json=json)
        fields: dict[str, object] = {
            "application": application,
            "version": flip.target.version,
            "generation": flip.generation,
            "verdict": "quiet",
            **asdict(seen),
        }
        if not seen.alarm:
            console.result(fields)
        elif chosen.guard_action == "alert":
            console.result(fields | {"verdict": "alert"})
            raise SnapshotError(f"{application}: {seen.because}", mend="Look at it, and if need be: make rollback")
        else:
            limit = chosen.memory_limit_fraction
            before = flip.before.version if flip.before is not None else None
            _, back_to = promotion.rollback(
                before, actor=actor, reason=seen.because, limit_fraction=limit, only_from=flip.target
            )
            say(f"{application}: {back_to.version} is live again", json=json)
            console.result(fields | {"verdict": "rolled_back", "live": back_to.version})


@contextmanager
def _decider(application: str, *, actor: str) -> Iterator[tuple[Promotion, Decider]]:
    from infra.experiments.deciding import Decider

    chosen = settings()
    with promotion_of(application) as promotion, batch_client(chosen.redis_url.get_secret_value()) as client:
        yield promotion, Decider(promotion, client, application_spec(application), chosen, actor=actor)


def _meant(running: Running, version: VersionName | None, generation: int) -> bool:
    return version in (None, running.canary.version) and generation in (0, running.live.generation)


def _ended(version: Version, generation: int) -> CanaryResult | None:
    from infra.experiments.filing import filed_result, newest_result

    return filed_result(version, generation) if generation else newest_result(version)


def _by(actor: str) -> str:
    return actor or getpass.getuser()


def _describe(alias: Alias) -> str:
    return f"{alias.version} live, generation {alias.generation}; {describe_canary(alias.canary)}"


def _fields(alias: Alias) -> dict[str, object]:
    return {
        "live": alias.version,
        "generation": alias.generation,
        "canary": asdict(alias.canary) if alias.canary else None,
    }


def _told(filed: CanaryResult) -> str:
    return f"{filed.version} ({filed.mode} of generation {filed.generation}): {filed.summary}. {filed.because}"


def _row(filed: CanaryResult, promotion: Promotion) -> dict[str, object]:
    return asdict(filed) | {"page": promotion.store.get(filed.version).storage.uri(filed.page)}


def _show(ruling: Ruling, *, json: bool) -> None:
    from infra.experiments.page import canary_facts, metric_row, shadow_rows
    from infra.experiments.shadow import ShadowReport

    if json:
        return
    found = ruling.found
    console.say(f"{ruling.canary.version} {found.verdict}: {found.because}")
    if isinstance(found, ShadowReport):
        console.notes.print(_table(("", "shown", "shadow"), shadow_rows(found)))
        return
    columns = ("title", "word", "live", "canary", "difference", "interval", "margin")
    rows = [tuple(metric_row(metric)[name] for name in columns) for metric in found.metrics]
    console.notes.print(_table(("", "", *columns[2:]), rows))
    console.notes.print(_table(("", ""), list(canary_facts(found).items())))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=any(columns))
    for name in columns:
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for row in rows:
        table.add_row(*row)
    return table
