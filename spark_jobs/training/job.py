"""job: the training step: a ranker learnt from the past, judged on what came after, with a report, in an attempt folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import RANKER_FEATURES, definition_hash
from infra.contracts.errors import StepMissing
from infra.snapshots.versions import StepOutput, Version
from spark_jobs.candidates import job as candidates_job
from spark_jobs.embeddings.fit import Algorithm
from spark_jobs.embeddings.interactions import gain
from spark_jobs.embeddings.source import Source
from spark_jobs.training import evaluation, report, split
from spark_jobs.training.examples import Examples, Sampling, build
from spark_jobs.training.past import Recipe, past_of
from spark_jobs.training.ranker import BASE_SCORE, Ranker, gains, keep_order, learn

STEP = "training"
MODEL = "ranker.ubj"
REPORT = "ranker_report.html"

TEACHING_USERS = 6000
NEGATIVES = 100
"""Candidates a teaching user that were not taken: more of them cost time in proportion and changed NDCG by less than chance."""

JUDGING_USERS = 2000
JUDGING_ROWS = 2_000_000
"""Whole lists are judged: 150 MB on the driver at most, so fewer users where lists are longer than 1000."""

SPLIT_USERS = 50_000
"""Users looked at to choose the split."""

NOT_WANTED = "no ranker was wanted"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """trees: of the ranker, at least one; seed: of everything drawn; split_kind: `auto` lets the data decide, see split.choose."""

    trees: int
    seed: int
    split_kind: split.Wanted = "auto"


def train(
    spark: SparkSession,
    version: Version,
    source: Source,
    *,
    spec: ApplicationSpec,
    options: TrainOptions,
    advance: Callable[[int], None] = lambda _: None,
) -> StepOutput:
    """Run the step for the version's latest candidates; `advance(1)` is called after each of its 4 stages.

    Two earlier snapshots are worked out in memory, the way this version's own was made: one as of the first cut, whose
    candidates with the labels after it teach, and one as of the second, whose candidates with the labels after it judge.
    """
    started = time.monotonic()
    recipe, parents = _made_of(version, seed=options.seed)
    if parents["dataset"] != source.dataset:
        raise StepMissing(
            f"{version.label}: its candidates are of dataset {parents['dataset']}, not {source.dataset}.",
            mend="Run the candidates step again.",
        )
    with version.attempt(STEP, parents=parents) as attempt:
        out = version.storage.below(attempt.path)
        wants = gain(spec) > 0
        first_event, cut = _split(source, spec, options)
        events = split.phases(source.events, cut, wants=wants).persist()
        advance(1)

        moments = cut.moments(source.last_event)

        def examples(first_label: int, sampling: Sampling) -> Examples:
            before = events.where(F.col("phase") < first_label)
            past = past_of(spark, source, before, as_of=moments[first_label - split.TRAIN], spec=spec, recipe=recipe)
            return build(spark, past, events.where(F.col("phase") == first_label), spec=spec, sampling=sampling)

        def taught() -> Ranker:
            teaching = examples(split.TRAIN, Sampling(TEACHING_USERS, NEGATIVES, options.seed))
            return learn(teaching, trees=options.trees, seed=options.seed, longest=recipe.k)

        judges = max(1, min(JUDGING_USERS, JUDGING_ROWS // recipe.k))
        with ThreadPoolExecutor(2) as pool:  # neither keeps all cores busy by itself
            learning = pool.submit(taught)
            gathering = pool.submit(examples, split.HELD_OUT, Sampling(judges, None, options.seed))
            ranker, judging = learning.result(), gathering.result()
        events.unpersist()
        advance(1)
        booster = ranker.booster()
        judged = evaluation.evaluate(booster, judging, trees=options.trees)
        advance(1)
        told = report.Told(
            snapshot=version.label,
            dataset=source.dataset,
            split=cut,
            first_event=first_event,
            last_event=source.last_event,
            ranker=ranker,
            judged=judged,
            gains=gains(booster),
            recipe=recipe,
        )
        out.write(MODEL, ranker.content)
        out.write(REPORT, report.render(told).encode())
        attempt.figures.update(_figures(ranker, cut.describe()))
        attempt.figures |= {"users_judging": judged.users, "metrics": judged.metrics}
        attempt.figures["seconds"] = round(time.monotonic() - started, 2)
        advance(1)
    return version.output(attempt.path)


def leave_in_order(version: Version, *, seed: int) -> StepOutput:
    """The step where no ranker is wanted: one that keeps the order of retrieval, learnt from nothing and judged by nobody."""
    started = time.monotonic()
    recipe, parents = _made_of(version, seed=seed)
    with version.attempt(STEP, parents=parents) as attempt:
        out = version.storage.below(attempt.path)
        ranker = keep_order(trees=1, longest=recipe.k)
        out.write(MODEL, ranker.content)
        out.write(REPORT, report.render_unranked(version.label, parents["dataset"], ranker, recipe).encode())
        attempt.figures.update(_figures(ranker, NOT_WANTED))
        attempt.figures |= {"users_judging": 0, "metrics": {}, "seconds": round(time.monotonic() - started, 2)}
    return version.output(attempt.path)


def _made_of(version: Version, *, seed: int) -> tuple[Recipe, dict[str, str]]:
    """How the version's latest candidates were made, and the step's parents."""
    made = version.latest(candidates_job.STEP)
    embedded = version.output(made.parents["embeddings"])
    parents = {"candidates": made.path, "embeddings": embedded.path, "dataset": made.parents["dataset"]}
    return recipe_of(embedded, made, seed=seed), parents


def recipe_of(embedded: StepOutput, made: StepOutput, *, seed: int) -> Recipe:
    """How the two steps were run, from what they said of themselves; raises StepMissing where a figure is not there."""
    try:
        return Recipe(
            algorithm=cast(Algorithm, str(embedded.figures["algorithm"])),
            dim=int(str(embedded.figures["dim"])),
            k=int(str(made.figures["candidates_per_user"])),
            include_seen=made.figures["include_seen"] is True,
            seed=seed,
        )
    except KeyError as error:
        raise StepMissing(
            f"{embedded.path} or {made.path} does not say its {error.args[0]}: it was written by other code.",
            mend="Run the embeddings and candidates steps again.",
        ) from error


def _split(source: Source, spec: ApplicationSpec, options: TrainOptions) -> tuple[datetime, split.Split]:
    """When what was looked at begins, and the cuts."""
    end = source.last_event + timedelta(microseconds=1)
    users, ages_days, share = split.label_ages(
        source.events,
        wants=gain(spec) > 0,
        end=end,
        n_users=source.n_users,
        max_users=SPLIT_USERS,
        seed=options.seed,
    )
    cut = split.choose(users, ages_days, end=end, share_sampled=share, wanted=options.split_kind)
    return end - timedelta(days=float(ages_days.max())), cut


def _figures(ranker: Ranker, taught_by: str) -> dict[str, object]:
    learnt = f"{ranker.users:,} users, {ranker.rows:,} candidates; {taught_by}"
    return {
        "signature": ranker.signature,
        "objective": ranker.objective,
        "base_score": BASE_SCORE,
        "definition_hash": definition_hash(),
        "feature_order": list(RANKER_FEATURES),
        "trees": ranker.trees,
        "trained_on": learnt if ranker.learnt else f"nothing, keeps the order of retrieval; {taught_by}",
        "split": taught_by,
        "users_teaching": ranker.users,
    }
