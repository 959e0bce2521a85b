"""python -m spark_jobs.candidates: each user's best items, the popular lists and the item table, for one version."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.ids import DatasetId
from infra.snapshots.versions import SnapshotStore
from spark_jobs.candidates.job import CandidateOptions, build_candidates
from spark_jobs.embeddings import job as embed_job
from spark_jobs.embeddings.source import read_source
from spark_jobs.session import running

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="which application's snapshot")],
    version: Annotated[str, typer.Option(help="a version whose embeddings are done, such as v12")],
) -> None:
    """Every user's candidates, packed; popular and trending items; the item table."""
    spec = application_spec(application)
    chosen = settings()
    target = SnapshotStore(chosen.store, spec.name).get(version)
    dataset = DatasetId(target.latest(embed_job.STEP).parents["dataset"])
    options = CandidateOptions(chosen.candidates_per_user, chosen.include_seen)
    with running(f"candidates {target.label}") as spark, console.progress("candidates", total=3) as advance:
        source = read_source(spark, chosen.store, spec.name, dataset)
        done = build_candidates(spark, target, source, spec=spec, options=options, advance=advance)
    console.result({"step": done.step, "version": target.version, "path": done.path, **done.figures})


if __name__ == "__main__":
    console.run(app)
