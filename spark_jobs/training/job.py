"""job: the training step: a ranker learnt from the past, judged on what came after, with a report, in an attempt folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import LIGHT_FEATURES, NETWORK_FEATURES, RANKER_FEATURES, definition_hash
from infra.contracts.errors import StepMissing
from infra.contracts.snapshots import StageInfo
from infra.snapshots import tables
from infra.snapshots.versions import StepOutput, Version
from spark_jobs.candidates import job as candidates_job
from spark_jobs.embeddings.fit import Algorithm
from spark_jobs.embeddings.interactions import gain
from spark_jobs.embeddings.source import Source
from spark_jobs.training import evaluation, report, split
from spark_jobs.training.ablation import ablation
from spark_jobs.training.examples import Examples, build
from spark_jobs.training.moments import LATELY_US
from spark_jobs.training.one_list import Sampling
from spark_jobs.training.past import Recipe, past_of
from spark_jobs.training.ranker import BASE_SCORE, Ranker, gains, keep_order
from spark_jobs.training.scorers import Scorers, teach
from spark_jobs.training.scorers import judged as judge
from spark_jobs.training.worth import LIGHT, NETWORK, TREES, Worth

STEP = "training"
MODEL = "ranker.ubj"
NETWORK_MODEL = "network.onnx"
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
            as_of = moments[first_label - split.TRAIN]
            past = past_of(spark, source, before, as_of=as_of, spec=spec, recipe=recipe)
            window = events.where(F.col("phase") == first_label)
            lately = None
            if cut.kind == "global":
                lately = before.where(F.col("event_time") >= F.lit(as_of - timedelta(microseconds=LATELY_US)))
            return build(spark, past, window, spec=spec, sampling=sampling, lately=lately)

        def taught() -> tuple[Scorers, Examples]:
            teaching = examples(split.TRAIN, Sampling(TEACHING_USERS, NEGATIVES, options.seed))
            return teach(teaching, trees=options.trees, seed=options.seed, longest=recipe.k), teaching

        judges = max(1, min(JUDGING_USERS, JUDGING_ROWS // recipe.k))
        with ThreadPoolExecutor(2) as pool:  # neither keeps all cores busy by itself
            learning = pool.submit(taught)
            gathering = pool.submit(examples, split.HELD_OUT, Sampling(judges, None, options.seed))
            (scorers, teaching), judging = learning.result(), gathering.result()
        events.unpersist()
        advance(1)
        ranker, booster = scorers.ranker, scorers.ranker.booster()
        with ThreadPoolExecutor(1) as pool:  # native work of one core each
            blinding = pool.submit(ablation, teaching, judging, seed=options.seed)
            worth = judge(scorers, judging, seed=options.seed)
            judged = evaluation.evaluate(booster, judging, trees=options.trees)
            without = blinding.result()
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
            worth=worth,
            without=without,
            recipe=recipe,
        )
        out.write(MODEL, ranker.content)
        if scorers.network is not None:
            out.write(NETWORK_MODEL, scorers.network)
        out.write(REPORT, report.render(told).encode())
        attempt.figures.update(_figures(ranker, cut.describe()))
        attempt.figures["stages"] = {name: asdict(info) for name, info in stage_infos(worth, scorers).items()}
        attempt.figures |= {"users_judging": judged.users, "metrics": judged.metrics}
        attempt.figures["seconds"] = round(time.monotonic() - started, 2)
        advance(1)
    return version.output(attempt.path)


def stage_infos(worth: Sequence[Worth], scorers: Scorers) -> dict[str, StageInfo]:
    """The scorers as the manifest keeps them; nothing where nothing was judged, so that the ranker alone is applied."""
    takes: dict[str, dict[str, Any]] = {
        LIGHT: {"inputs": LIGHT_FEATURES, "weights": scorers.light or ()},
        TREES: {"inputs": RANKER_FEATURES, "part": tables.RANKER},
        NETWORK: {"inputs": NETWORK_FEATURES, "part": tables.NETWORK},
    }
    return {
        one.name: StageInfo(one.ndcg10, one.gain.mean, one.gain.low95, one.on, **takes[one.name])
        for one in worth
        if one.name in takes and scorers.ranker.learnt
    }


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
