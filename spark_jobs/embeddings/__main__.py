"""python -m spark_jobs.embeddings: embed a dataset's users and items for one version."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.ids import DatasetId
from infra.snapshots.versions import SnapshotStore
from spark_jobs.embeddings.job import EmbedOptions, embed
from spark_jobs.embeddings.source import read_source
from spark_jobs.session import running

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="which application's snapshot")],
    version: Annotated[str, typer.Option(help="an opened version, such as v12")],
    dataset: Annotated[str, typer.Option(help="the dataset that ingest printed")],
) -> None:
    """Vectors of users and items, and what both have been up to."""
    spec = application_spec(application)
    chosen = settings()
    target = SnapshotStore(chosen.store, spec.name).get(version)
    options = EmbedOptions(chosen.embedder, chosen.embedding_dim, chosen.random_seed)
    with running(f"embeddings {target.label}") as spark, console.progress("embeddings", total=4) as advance:
        source = read_source(spark, chosen.store, spec.name, DatasetId(dataset))
        done = embed(spark, target, source, spec=spec, options=options, advance=advance)
    console.result({"step": done.step, "version": target.version, "path": done.path, **done.figures})


if __name__ == "__main__":
    console.run(app)
