"""python -m spark_jobs.publish: seal a version: the manifest over the steps that belong together; from then on it never changes."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import typer

from infra.catalog.applications import application as application_spec
from infra.catalog.features import ranking as features
from infra.config import console
from infra.config.settings import settings
from infra.contracts.errors import StepMissing
from infra.contracts.ids import DatasetId
from infra.contracts.snapshots import Manifest, Part, RankerInfo, StageInfo
from infra.snapshots import tables
from infra.snapshots.chunks import seal_chunks
from infra.snapshots.versions import SnapshotStore, StepOutput, Version
from spark_jobs.candidates import job as candidates_job
from spark_jobs.embeddings import job as embed_job
from spark_jobs.training import job as training_job

app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="which application's snapshot")],
    version: Annotated[str, typer.Option(help="a version whose training is done, such as v12")],
    actor: Annotated[str, typer.Option(help="by whose hand, for the records; the default is the system's user")] = "",
) -> None:
    """Digest every file, write the manifest, record STAGED. Running it again changes nothing."""
    spec = application_spec(application)
    target = SnapshotStore(settings().store, spec.name).get(version)
    sealed = publish(target, actor=actor or getpass.getuser())
    files = sum(len(part.files) for part in sealed.parts.values())
    console.result(
        {
            "version": sealed.version,
            "digest": sealed.digest,
            "state": target.state(),
            "dataset": sealed.dataset,
            "counts": sealed.counts,
            "files": files,
            "bytes": sum(part.bytes for part in sealed.parts.values()),
            "metrics": sealed.ranker.metrics,
        }
    )


class Steps:
    """The steps of one snapshot, each built from the one before it."""

    def __init__(self, version: Version, trained: StepOutput) -> None:
        """trained: a completed training step. Raises StepMissing where what it was built from is not there or not of one piece."""
        self.trained = trained
        self.made = version.output(trained.parents.get("candidates", "none"))
        self.embedded = version.output(self.made.parents.get("embeddings", "none"))
        said = {step.parents.get("dataset", "none") for step in (self.trained, self.made, self.embedded)}
        if len(said) > 1 or trained.parents.get("embeddings") != self.embedded.path:
            raise StepMissing(
                f"{version.label}: {trained.path} was trained for {trained.parents}, but {self.made.path} was built from "
                f"{self.made.parents}.",
                mend=_run(version, "training"),
            )

    @property
    def paths(self) -> dict[str, str]:
        """Step -> folder, as the manifest keeps its parents."""
        return {step.step: step.path for step in (self.embedded, self.made, self.trained)}


def steps_of(version: Version) -> Steps:
    """The newest training step that belongs with its candidates and embeddings.

    A killed try may complete late, after the next one: what counts is what the ranker was trained for. Steps that ended
    after it and that no ranker was trained for are left out, and said so. Raises StepMissing, with the command to run.
    """
    tries = completed(version, training_job.STEP)
    if not tries:
        version.latest(embed_job.STEP)  # the first step that is missing is the one to name
        version.latest(candidates_job.STEP)
        version.latest(training_job.STEP)
    refusals: list[StepMissing] = []
    for trained in tries:
        try:
            chosen = Steps(version, trained)
        except StepMissing as error:
            refusals.append(error)
            continue
        for name, path in chosen.paths.items():
            newest = version.latest(name)
            if newest.path != path:
                console.say(
                    f"{version.label}: {newest.path} ended last, but the ranker was trained for {path}: sealed is {path}"
                )
        return chosen
    raise refusals[0]


def completed(version: Version, step: str) -> list[StepOutput]:
    """The step's completed tries, newest first."""
    folders = [f"attempts/{name}" for name in version.storage.names("attempts") if name.rsplit("-", 1)[0] == step]
    done = [version.output(path) for path in folders if version.storage.exists(f"{path}/_step.json")]
    return sorted(done, key=lambda output: output.completed_at, reverse=True)


def publish(version: Version, *, actor: str) -> Manifest:
    """Seal the version, or return the manifest that it has: steps that were run again afterwards do not change it."""
    if version.sealed:
        sealed = version.manifest()
        newer = [path for name in sealed.parents if (path := version.latest(name).path) not in sealed.parents.values()]
        if newer:
            console.say(
                f"{version.label} is sealed and stays as it is, without {', '.join(newer)}. For those: make snapshot"
            )
        return version.seal(sealed, actor=actor)  # records STAGED where a killed try had not come to it
    return version.seal(manifest_of(version, steps_of(version)), actor=actor)


def manifest_of(version: Version, steps: Steps) -> Manifest:
    """What the steps wrote and said of themselves, with the digest of every file and of what Redis must hold for each user."""
    embedded, made, trained = steps.embedded, steps.made, steps.trained
    code = features.definition_hash()
    seen = trained.figures.get("definition_hash")
    if seen != code:
        raise StepMissing(
            f"{version.label}: {trained.path} was trained on feature definition {seen}; this code has {code}.",
            mend=_run(version, "training"),
        )
    parts = parts_of(version, steps)
    candidates = parts[tables.CANDIDATES]
    with console.progress("records", total=candidates.rows) as advance:
        parts[tables.CHUNKS], records_root = seal_chunks(version, list(candidates.files), advance=advance)
    return Manifest(
        application=version.application,
        version=version.version,
        created_at=datetime.now(UTC),
        dataset=DatasetId(made.parents["dataset"]),
        parents=steps.paths,
        generation_at_start=version.generation_at_start,
        embedder=str(made.figures["embedder"]),
        dim=int(str(made.figures["dim"])),
        candidates_per_user=int(str(made.figures["candidates_per_user"])),
        include_seen=made.figures["include_seen"] is True,
        score_scale=float(str(made.figures["score_scale"])),
        user_feature_order=features.USER_FEATURES,
        item_feature_order=features.ITEM_FEATURES,
        definition_hash=code,
        counts={
            "users": parts[tables.CANDIDATES].rows,
            "users_embedded": parts[tables.USER_VECTORS].rows,
            "items": parts[tables.ITEM_TABLE].rows,
            "events": int(str(embedded.figures["events"])),
        },
        parts=parts,
        ranker=RankerInfo(
            part=tables.RANKER,
            signature=str(trained.figures["signature"]),
            feature_order=features.RANKER_FEATURES,
            trees=int(str(trained.figures["trees"])),
            metrics=cast("dict[str, dict[str, float]]", trained.figures["metrics"]),
            trained_on=str(trained.figures["trained_on"]),
        ),
        records_root=records_root,
        stages={name: StageInfo.from_fields(said) for name, said in _stages(trained).items()},
    )


def _stages(trained: StepOutput) -> dict[str, dict[str, Any]]:
    """What the training step says of the scorers; nothing where it judged none."""
    return cast("dict[str, dict[str, Any]]", trained.figures.get("stages", {}))


def parts_of(version: Version, steps: Steps) -> dict[str, Part]:
    """Every part that the steps wrote, digested, with a bar."""
    embedded, made, trained = steps.embedded.path, steps.made.path, steps.trained.path
    paths = {
        tables.CANDIDATES: f"{made}/{tables.CANDIDATES}",
        tables.ITEM_TABLE: f"{made}/{tables.ITEM_TABLE}.parquet",
        tables.POPULAR: f"{made}/{tables.POPULAR}.parquet",
        tables.USER_VECTORS: f"{embedded}/{tables.USER_VECTORS}",
        tables.ITEM_VECTORS: f"{embedded}/{tables.ITEM_VECTORS}",
    }
    models = {
        tables.RANKER: f"{trained}/{training_job.MODEL}",
        tables.RANKER_REPORT: f"{trained}/{training_job.REPORT}",
    }
    if tables.NETWORK in _stages(steps.trained):
        models[tables.NETWORK] = f"{trained}/{training_job.NETWORK_MODEL}"
    parts = {}
    with console.progress("digests", total=len(paths) + len(models)) as advance:
        for name, path in (paths | models).items():
            _require(version, path)
            parts[name] = version.part(path, rows=1 if name in models else None)
            advance(1)
    return parts


def _require(version: Version, path: str) -> None:
    if not version.storage.exists(path):
        step = path.split("/")[1].rsplit("-", 1)[0]
        raise StepMissing(
            f"{version.label}: {path} is gone although its step completed.",
            mend=f"{_run(version, step)}, and those after it",
        )


def _run(version: Version, step: str) -> str:
    return f"Run: python -m spark_jobs.{step} --application {version.application} --version {version.version}"


if __name__ == "__main__":
    console.run(app)
