"""The training step: a model that serves, honest figures, a report, and what it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost
from pyspark.sql import SparkSession

from infra.catalog.applications.ranking import RANKING
from infra.catalog.features.ranking import NETWORK_FEATURES, RANKER_FEATURES
from infra.contracts.errors import StepMissing
from infra.contracts.ids import DatasetId
from infra.snapshots.network import Network
from infra.snapshots.versions import SnapshotStore
from spark_jobs.candidates.job import CandidateOptions, build_candidates
from spark_jobs.embeddings.job import EmbedOptions, embed
from spark_jobs.embeddings.source import read_source
from spark_jobs.training.job import MODEL, NETWORK_MODEL, REPORT, TrainOptions, leave_in_order, train
from tests.fixtures.tiny_dataset import Events, write_dataset
from tests.unit.spark_jobs.training.conftest import Trained


def test_the_step_leaves_a_model_that_scores_and_a_report(trained: Trained) -> None:
    storage = trained.version.storage.below(trained.trained.path)
    booster = xgboost.Booster()
    booster.load_model(bytearray(storage.read(MODEL)))
    assert booster.num_boosted_rounds() == 12 and tuple(booster.feature_names or ()) == RANKER_FEATURES
    scores = booster.inplace_predict(np.random.default_rng(1).random((50, len(RANKER_FEATURES))).astype(np.float32))
    assert np.all(np.isfinite(scores)) and len(np.unique(scores)) > 10
    assert b"ranking/v1" in storage.read(REPORT) and b"</html>" in storage.read(REPORT)


def test_the_step_says_what_it_was_made_from_and_how_well_it_does(trained: Trained) -> None:
    done = trained.trained
    assert done.parents == {"candidates": trained.made.path, **trained.made.parents}
    metrics = done.figures["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["retrieval"]["ndcg@10"] > metrics["popularity"]["ndcg@10"] > 0
    assert metrics["ranker"]["ndcg@10"] > 0.85 * metrics["retrieval"]["ndcg@10"]
    assert metrics["held_out"]["users"] == done.figures["users_judging"]
    assert "temporal split" in str(done.figures["trained_on"]) and int(str(done.figures["users_teaching"])) >= 20


def test_the_step_says_of_each_stage_what_it_adds_and_leaves_a_network_that_scores(trained: Trained) -> None:
    stages = trained.trained.figures["stages"]
    assert isinstance(stages, dict) and list(stages) == ["light", "ranker", "network"]
    for stage in stages.values():
        assert stage["gain_low95"] <= stage["gain"] and stage["on"] == (stage["gain_low95"] > 0)
    assert len(stages["light"]["weights"]) == len(stages["light"]["inputs"]) == 3
    content = trained.version.storage.below(trained.trained.path).read(NETWORK_MODEL)
    rows = np.random.default_rng(1).random((300, len(NETWORK_FEATURES))).astype(np.float32)
    scores = Network(content, inputs=len(NETWORK_FEATURES)).scores(rows)
    assert np.all(np.isfinite(scores)) and len(np.unique(scores)) > 100
    assert b"What each stage adds" in trained.version.storage.below(trained.trained.path).read(REPORT)


def test_a_world_where_nobody_comes_twice_still_gets_a_servable_ranker(spark: SparkSession, tmp_path: Path) -> None:
    store, n = str(tmp_path), 40
    once = Events(np.arange(n), np.arange(n) % 12, np.linspace(0, 280_000, n), ["click"] * n)
    write_dataset(store, once, users=n, items=12)
    version = SnapshotStore(store, RANKING.name).allocate(generation=0, actor="test")
    source = read_source(spark, store, RANKING.name, DatasetId("tiny"))
    embed(spark, version, source, spec=RANKING, options=EmbedOptions("spectral", 4, 1))
    build_candidates(spark, version, source, spec=RANKING, options=CandidateOptions(10, include_seen=False))
    done = train(spark, version, source, spec=RANKING, options=TrainOptions(trees=3, seed=1))
    assert done.figures["users_teaching"] == done.figures["users_judging"] == 0 and done.figures["stages"] == {}
    assert str(done.figures["trained_on"]).startswith("nothing")
    assert done.figures["metrics"] == {"ranker": {}, "retrieval": {}, "popularity": {}, "held_out": {"users": 0.0}}


def test_where_no_ranker_is_wanted_lists_keep_their_order_and_nothing_is_judged(trained: Trained) -> None:
    done = leave_in_order(trained.version, seed=1)
    assert done.parents == trained.trained.parents
    assert done.figures["metrics"] == {} and "no ranker was wanted" in str(done.figures["trained_on"])
    storage = trained.version.storage.below(done.path)
    booster = xgboost.Booster()
    booster.load_model(bytearray(storage.read(MODEL)))
    longest = int(str(trained.made.figures["candidates_per_user"]))
    rows = np.zeros((longest, len(RANKER_FEATURES)), np.float32)
    rows[:, RANKER_FEATURES.index("retrieval_rank_log")] = np.log1p(np.arange(longest))
    assert np.all(np.diff(booster.inplace_predict(rows)) < 0)
    page = storage.read(REPORT)
    assert b"No ranker was wanted" in page and b"</html>" in page


def test_training_before_candidates_names_the_command_to_run(spark: SparkSession, trained: Trained) -> None:
    empty = SnapshotStore(trained.store, RANKING.name).allocate(generation=0, actor="test")
    with pytest.raises(StepMissing, match="python -m spark_jobs.candidates"):
        train(spark, empty, trained.source, spec=RANKING, options=TrainOptions(trees=3, seed=1))
