"""python -m spark_jobs.training.consistency: make a sample of the last hour's answers again, and file what differs."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import numpy as np
import typer

from infra.catalog.applications import application as application_spec
from infra.catalog.features.nearline import plan_of
from infra.config import console
from infra.config.settings import settings
from infra.contracts.decisions import Decision
from infra.contracts.errors import ContractViolation, HeadgateError, InvalidRequest, SnapshotNotFound
from infra.contracts.features import FeaturePlan
from infra.eventlog.decisions import LoggedDecision
from infra.nearline.archive import archive_of
from infra.nearline.consistency_rows import NO_RUN, AnswerRow, file_rows, run_name, runs_of
from infra.nearline.decision_archive import read_decisions
from infra.nearline.moments import moment_or_none
from infra.snapshots.storage import Storage
from spark_jobs.training.as_of import AsOf
from spark_jobs.training.replay import Offline, Replayed

_TEXT = 300
"""Characters of an example."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Summary:
    """Of all rows; see AnswerRow."""

    sampled: int
    replayed: int
    values: int
    mismatches: int
    answers_that_differ: int
    as_of_values: int
    as_of_mismatches: int
    as_of_answers_that_differ: int


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="whose answers")] = "ranking",
    sample: Annotated[int, typer.Option(min=1, help="how many answers, chosen by a hash of their positions")] = 500,
    hours: Annotated[float, typer.Option(min=0.01, help="of answers")] = 1.0,
    until: Annotated[
        str, typer.Option(help="answers before then, such as 2026-05-01T12:00:00Z; default: what is surely archived")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="nothing for people, only the JSON object on stdout")] = False,
) -> None:
    """Compare to the bit; `python -m validation.consistency` judges. Where nothing was answered it says so and files nothing.

    Beside it, as a control, features by event time as they are usually joined: how often they are not what was served.
    """
    started = time.monotonic()
    spec, chosen, now = application_spec(application), settings(), datetime.now(UTC)
    archive = archive_of(chosen.store, spec.name)
    end = moment_or_none(until, flag="--until") or now - timedelta(seconds=2 * chosen.archive_seconds)
    entries = sampled(read_decisions(archive, since=end - timedelta(hours=hours), until=end), sample)
    if not entries:
        console.say(f"{spec.name}: no answer of the {hours:g} h before {end:%Y-%m-%d %H:%M:%S} UTC is archived")
        console.result({"application": spec.name, "run": NO_RUN, "sampled": 0})
        return
    offline = Offline(chosen.store, spec.name, horizon=chosen.log_duplicate_horizon, since=first_moment(entries))
    with console.progress("answers made again", total=len(entries)) as advance:
        rows = asyncio.run(check(entries, offline, control(archive, plan_of(spec.name), entries), advance=advance))
    runs, run = runs_of(chosen.store, spec.name), run_name(now)
    path = file_rows(runs, run, rows)
    found, seconds = summary(rows), time.monotonic() - started
    if not json:
        console.say(
            f"{found.replayed:,} of {found.sampled:,} answers made again, {found.values:,} feature values compared: "
            f"{found.mismatches:,} differ. Joined by event time {found.as_of_mismatches:,} of {found.as_of_values:,} would"
        )
    fields = {"application": spec.name, "run": run, **asdict(found), "rows": runs.uri(path)}
    console.result(fields | {"seconds": round(seconds, 2), "per_second": round(found.sampled / seconds, 1)})


def sampled(entries: Iterable[LoggedDecision], number: int) -> list[LoggedDecision]:
    """So many of them, the same in every run: those with the smallest hashes; in their order."""
    chosen = heapq.nsmallest(number, entries, key=lambda entry: hashlib.blake2b(entry.position.encode()).digest())
    return sorted(chosen, key=lambda entry: tuple(map(int, entry.position.split("-"))))


async def check(
    entries: Sequence[LoggedDecision],
    offline: Offline,
    as_of: AsOf,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[AnswerRow]:
    """A row an answer, in order. One that cannot be made again (its snapshot was collected) is a row that says so."""
    decisions = readable(entries)
    offline.expect(decision for decision in decisions if decision is not None)
    rows = []
    for entry, decision in zip(entries, decisions, strict=True):
        if decision is None:
            rows.append(AnswerRow("", "", 0, "", False, because=f"{entry.position} is no answer of this release"))
        else:
            rows.append(await _row(decision, offline, as_of))
        advance(1)
    return rows


def readable(entries: Iterable[LoggedDecision]) -> list[Decision | None]:
    """The answers; None where this release cannot read one."""
    out: list[Decision | None] = []
    for entry in entries:
        try:
            out.append(entry.decision())
        except ContractViolation:
            out.append(None)
    return out


def control(archive: Storage, plan: FeaturePlan, entries: Sequence[LoggedDecision]) -> AsOf:
    """The events of those answers' users."""
    users = {decision.user_id for decision in readable(entries) if decision is not None}
    return AsOf(archive, plan, users, since=first_moment(entries))


def first_moment(entries: Iterable[LoggedDecision]) -> datetime:
    """Of those answers; now where none can be read."""
    moments = [decision.basis.now_us for decision in readable(entries) if decision is not None]
    return datetime.fromtimestamp(min(moments) / 1e6, UTC) if moments else datetime.now(UTC)


def summary(rows: Sequence[AnswerRow]) -> Summary:
    """Over all of them."""
    return Summary(
        sampled=len(rows),
        replayed=sum(row.replayed for row in rows),
        values=sum(row.values for row in rows),
        mismatches=sum(row.mismatches for row in rows),
        answers_that_differ=sum(row.differences > 0 for row in rows),
        as_of_values=sum(row.as_of_values for row in rows),
        as_of_mismatches=sum(row.as_of_mismatches for row in rows),
        as_of_answers_that_differ=sum(row.as_of_differs for row in rows),
    )


async def _row(decision: Decision, offline: Offline, as_of: AsOf) -> AnswerRow:
    row = AnswerRow(decision.request_id, decision.user_id, decision.basis.now_us, decision.version, False)
    try:
        exact = (await offline.replay(decision)).compared
        usual = await offline.replay_knowing(decision, as_of.seen(decision))
    except HeadgateError as error:
        is_lost = not isinstance(error, (SnapshotNotFound, InvalidRequest))
        return replace(row, because=f"{type(error).__name__}: {error}"[:_TEXT], is_lost=is_lost)
    as_of_values, as_of_mismatches = _by_item(decision, usual)
    return replace(
        row,
        replayed=True,
        values=exact.values,
        mismatches=exact.mismatches,
        differences=len(exact.differences),
        kinds=",".join(exact.kinds),
        example=exact.differences[0].text[:_TEXT] if exact.differences else "",
        as_of_values=as_of_values,
        as_of_mismatches=as_of_mismatches,
        as_of_differs=usual.made.list_digest != decision.list_digest,
    )


def _by_item(decision: Decision, usual: Replayed) -> tuple[int, int]:
    """Feature values compared and those that differ: nearline ones, and the vectors of items that are candidates in both."""
    values = len(decision.nearline)
    mismatches = sum(usual.made.nearline.get(name) != value for name, value in decision.nearline.items())
    vectors = usual.vectors
    rows = dict(zip(usual.item_ids, vectors, strict=True)) if vectors is not None else {}
    for item, served in zip(decision.items, decision.features, strict=False):
        row = rows.get(item)
        if row is not None:
            values += served.size
            mismatches += int((row.view(np.uint32) != served.view(np.uint32)).sum())
    return values, mismatches


if __name__ == "__main__":
    console.run(app)
