"""python -m spark_jobs.training.decisions: a training set of what was served: shown items, their features then, what users did."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import orjson
import typer
from pyspark.sql import DataFrame, SparkSession

from infra.catalog.applications import application as application_spec
from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.config import console
from infra.config.settings import settings
from infra.contracts.errors import InvalidRequest
from infra.nearline.archive import archive_of
from infra.nearline.decision_archive import read_decisions
from infra.nearline.moments import moment, moment_or_none
from infra.snapshots.storage import Storage
from spark_jobs import frames
from spark_jobs.session import running
from spark_jobs.training.consistency import readable, sampled
from spark_jobs.training.made_again import MadeAgain, write_candidates
from spark_jobs.training.replay import Offline
from spark_jobs.training.shown import LABELLED_SCHEMA, events, labelled, shown

MANIFEST = "manifest.json"
"""Written last: a folder without it is no training set."""

_ROWS = "rows"
_AGAIN = "made_again"

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which answers (logged from `since` up to before `until`), and how long after one its user's deeds count."""

    since: datetime
    until: datetime
    visit: timedelta
    horizon: int


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="whose answers")] = "ranking",
    since: Annotated[str, typer.Option(help="answers from then on, such as 2026-05-01T12:00:00Z")],
    until: Annotated[
        str, typer.Option(help="answers before then; default: those whose visits are over and archived")
    ] = "",
    out: Annotated[
        str, typer.Option(help="a folder that is not there yet; default: below <store>/<application>/training_sets")
    ] = "",
    all_candidates: Annotated[
        bool, typer.Option("--all-candidates", help="also what was scored and not shown: answers are made again for it")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="with --all-candidates: how many answers at most")] = 1000,
) -> None:
    """One row an item shown: grade, features as served to the bit, place, score, version, request id.

    An item's grade is the highest gain of what the same user did with it within HEADGATE_VISIT_MINUTES after the answer, by the
    clock of the log; an event that was sent twice counts once.
    """
    started = time.monotonic()
    spec, chosen = application_spec(application), settings()
    visit = timedelta(minutes=chosen.visit_minutes)
    over = datetime.now(UTC) - visit - timedelta(seconds=2 * chosen.archive_seconds)
    end = moment_or_none(until, flag="--until") or over
    wanted = Wanted(moment(since, flag="--since"), end, visit, chosen.log_duplicate_horizon)
    if not wanted.since < wanted.until <= over:
        raise InvalidRequest(
            f"Answers from {wanted.since.isoformat()} to {wanted.until.isoformat()} are asked for; the visits of those before "
            f"{over.isoformat()} are over.",
            mend="Ask for an earlier --since or --until.",
        )
    archive = archive_of(chosen.store, spec.name)
    name = f"{wanted.since:%Y%m%dT%H%M%SZ}-{wanted.until:%Y%m%dT%H%M%SZ}{'-all' if all_candidates else ''}"
    target = Storage(out or f"{chosen.store}/{spec.name}/training_sets/{name}")
    if target.exists(""):
        raise InvalidRequest(f"{target.url} is there already.", mend="Remove it, or name another with --out.")
    with running(f"training set {name}") as spark:
        again: MadeAgain | None = None
        if all_candidates:
            offline = Offline(chosen.store, spec.name, horizon=wanted.horizon, since=wanted.since)
            again = make_again(archive, offline, target, wanted, sample=sample)
            rows = frames.read(spark, target, _AGAIN)
        else:
            rows = shown(spark, archive, since=wanted.since, until=wanted.until)
        manifest = build(spark, archive, rows, target, spec=spec, wanted=wanted, again=again)
    console.result({**manifest, "path": target.url, "seconds": round(time.monotonic() - started, 2)})


def make_again(archive: Storage, offline: Offline, target: Storage, wanted: Wanted, *, sample: int) -> MadeAgain:
    """All candidates of a sample of the answers, below the target."""
    entries = sampled(read_decisions(archive, since=wanted.since, until=wanted.until), sample)
    known = [entry for entry, decision in zip(entries, readable(entries), strict=True) if decision is not None]
    with console.progress("answers made again", total=len(known)) as advance:
        return asyncio.run(write_candidates(known, offline, target, _AGAIN, advance=advance))


def build(
    spark: SparkSession,
    archive: Storage,
    rows: DataFrame,
    target: Storage,
    *,
    spec: ApplicationSpec,
    wanted: Wanted,
    again: MadeAgain | None = None,
) -> dict[str, object]:
    """Label the rows (SHOWN_SCHEMA) and write them with their manifest, which comes last; returns it."""
    did = events(
        spark, archive, since=wanted.since, until=wanted.until + wanted.visit, horizon=wanted.horizon
    ).persist()
    try:
        written = frames.write(
            labelled(rows, did, spec=spec, visit=wanted.visit), target, _ROWS, schema=LABELLED_SCHEMA
        )
        n_events = did.count()
    finally:
        did.unpersist()
    target.remove(_AGAIN)
    table = frames.read(spark, target, _ROWS, columns=["position", "grade", "version"])
    grades = {int(row["grade"]): int(row["count"]) for row in table.groupBy("grade").count().collect()}
    manifest: dict[str, object] = {
        "application": spec.name,
        "since": wanted.since.isoformat(),
        "until": wanted.until.isoformat(),
        "visit_minutes": wanted.visit.total_seconds() / 60,
        "rows": written.rows,
        "answers": table.select("position").distinct().count(),
        "grades": dict(sorted(grades.items())),
        "versions": sorted(row["version"] for row in table.select("version").distinct().collect()),
        "events": n_events,
        "columns": list(RANKER_FEATURES),
        "made_again": None if again is None else asdict(again),
        "files": {name: target.sha256(name) for name in written.files},
    }
    content = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    if not target.create(MANIFEST, content):
        raise InvalidRequest(f"{target.uri(MANIFEST)} is there already: two jobs wrote to one folder.")
    return manifest


if __name__ == "__main__":
    console.run(app)
