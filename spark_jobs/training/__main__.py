"""python -m spark_jobs.training: learn a ranker for one version from the past and judge it on what came after."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.ids import DatasetId
from infra.snapshots.versions import SnapshotStore
from spark_jobs.candidates import job as candidates_job
from spark_jobs.embeddings.source import read_source
from spark_jobs.session import running
from spark_jobs.training.job import TrainOptions, leave_in_order, train

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="which application's snapshot")],
    version: Annotated[str, typer.Option(help="a version whose candidates are done, such as v12")],
) -> None:
    """The ranker, its figures beside retrieval and popularity, and a report to read offline."""
    spec = application_spec(application)
    chosen = settings()
    target = SnapshotStore(chosen.store, spec.name).get(version)
    dataset = DatasetId(target.latest(candidates_job.STEP).parents["dataset"])
    options = TrainOptions(chosen.ranker_trees, chosen.random_seed)
    if options.trees == 0:
        console.say("no ranker is wanted (HEADGATE_RANKER_TREES=0): lists keep the order of retrieval")
        done = leave_in_order(target, seed=options.seed)
    else:
        with running(f"training {target.label}") as spark, console.progress("training", total=4) as advance:
            source = read_source(spark, chosen.store, spec.name, dataset)
            done = train(spark, target, source, spec=spec, options=options, advance=advance)
    console.result({"step": done.step, "version": target.version, "path": done.path, **done.figures})


if __name__ == "__main__":
    console.run(app)
