"""python -m spark_jobs.training.replay: make an archived answer again, to the bit, and show it beside what was logged."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from bentos.ranking.offline import Offline, Replayed
from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.decisions import Decision
from infra.contracts.errors import InvalidRequest
from infra.nearline.archive import archive_of
from infra.nearline.decision_archive import find
from infra.nearline.moments import moment_or_none

__all__ = ["Offline", "Replayed"]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    request_id: Annotated[str, typer.Argument(help="as the answer says it")],
    *,
    application: Annotated[str, typer.Option(help="whose answer")] = "ranking",
    since: Annotated[
        str, typer.Option(help="look only at what was logged from then on, such as 2026-05-01T12:00:00Z")
    ] = "",
    until: Annotated[str, typer.Option(help="look only at what was logged before then")] = "",
    json: Annotated[bool, typer.Option("--json", help="nothing for people, only the JSON object on stdout")] = False,
) -> None:
    """Make the answer of that request again from the store alone: snapshot, user, events, clock as they were.

    Says "exact", or each difference; then it ends with exit code 1.
    """
    name, chosen = application_spec(application).name, settings()
    archive = archive_of(chosen.store, name)
    found = find(
        archive,
        request_id,
        since=moment_or_none(since, flag="--since"),
        until=moment_or_none(until, flag="--until"),
    )
    if found is None:
        raise InvalidRequest(
            f"The archive {archive.url} has no answer {request_id!r}.",
            mend=f"An answer is archived {chosen.archive_seconds:g} s after it was given, where a nearline worker runs: "
            "python -m infra.nearline status",
        )
    decision = found.decision()
    at = datetime.fromtimestamp(decision.basis.now_us / 1e6, UTC)
    offline = Offline(chosen.store, name, horizon=chosen.log_duplicate_horizon, since=at)
    replayed = asyncio.run(offline.replay(decision))
    if not json:
        _show(decision, replayed)
    console.result(told(decision, replayed))
    if not replayed.is_exact:
        raise typer.Exit(1)


def told(decision: Decision, replayed: Replayed) -> dict[str, object]:
    """For machines."""
    return {
        "request_id": decision.request_id,
        "user_id": decision.user_id,
        "version": decision.version,
        "exact": replayed.is_exact,
        "values_compared": replayed.compared.values,
        "mismatches": replayed.compared.mismatches,
        "differences": [f"{one.kind}: {one.text}" for one in replayed.compared.differences],
        "logged": _rows(decision),
        "made_again": _rows(replayed.made),
        "nearline": dict(replayed.made.nearline),
    }


def _rows(decision: Decision) -> list[dict[str, object]]:
    return [
        {"item_id": item, "score": score} for item, score in zip(decision.items, decision.scores.tolist(), strict=True)
    ]


def _show(decision: Decision, replayed: Replayed) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("place", "logged", "score", "made again", "score", ""):
        table.add_column(column, justify="right" if column in ("place", "score") else "left")
    for place, (was, now) in enumerate(zip_longest(_rows(decision), _rows(replayed.made)), 1):
        cells = [Text(str(part)) for row in (was, now) for part in ((row or {}).values() or ("-", "-"))]
        table.add_row(str(place), *cells, "" if was == now else "<- differs")
    console.notes.print(table)
    for difference in replayed.compared.differences:
        console.say(f"{difference.kind}: {difference.text}")
    if replayed.is_exact:
        console.say(f"exact: {len(decision.items)} items and {replayed.compared.values} feature values, to the bit")


if __name__ == "__main__":
    console.run(app)
