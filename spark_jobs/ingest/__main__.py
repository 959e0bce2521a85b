"""python -m spark_jobs.ingest: read the user's own data into a sealed dataset."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from spark_jobs.ingest.columns import parse_mapping
from spark_jobs.ingest.job import ImportOptions, ingest

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="whose dataset")],
    source: Annotated[str, typer.Option(help="a file, folder, glob or .zip; a path or an fsspec URL")],
    format: Annotated[str, typer.Option(help="auto, movielens, csv, jsonl, parquet or world")] = "auto",
    map: Annotated[
        str, typer.Option(help="user=..,item=..,time=..,type=..,value=..; numbers for a CSV without header; time=none")
    ] = "",
    max_rejected_fraction: Annotated[
        float | None, typer.Option(help="bad rows above this share fail the import; default: the setting")
    ] = None,
) -> None:
    """Events, items and users as one dataset. Bad rows go to a file of their own; too many of them, and nothing is imported.

    Beside the events a folder may hold items.* (item_id, title, genres split by |, creator, first_seen) and users.*
    (user_id, age_years, gender, country), each as csv, tsv, jsonl or parquet. A folder `events` in it, if any, holds the events.
    Times are unix seconds, ms, us or ns (told by their size) or ISO 8601; without a zone they are UTC.
    """
    chosen, spec = settings(), application_spec(application)
    allowed = chosen.max_rejected_fraction if max_rejected_fraction is None else max_rejected_fraction
    options = ImportOptions(spec.name, source, chosen.home, datetime.now(UTC), format, parse_mapping(map), allowed)
    done = ingest(chosen.store, options)
    record = done.record
    counts = record["counts"] if isinstance(record["counts"], dict) else {}
    rejected = counts.get("rejected", {})
    if done.reused:
        console.say(f"This source was imported before, as {done.dataset}: nothing to do.")
    for reason, number in rejected.items():
        console.say(f"rejected {number:,} of {counts['rows']:,} rows: {reason} (see {done.rejects})")
    console.result(
        {
            "dataset": done.dataset,
            "format": record["format"],
            **counts,
            "rejected_fraction": record["rejected_fraction"],
            "rejects": done.rejects,
            "first_event": record["first_event"],
            "last_event": record["last_event"],
            "event_types": record["event_types"],
            "reused": done.reused,
            "seconds": done.seconds,
        }
    )


if __name__ == "__main__":
    console.run(app)
