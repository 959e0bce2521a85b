"""A small world with embeddings, candidates and a trained ranker: made once, looked at by several files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from pyspark.sql import SparkSession

from infra.catalog.applications.ranking import RANKING
from infra.contracts.ids import DatasetId
from infra.snapshots.versions import SnapshotStore, StepOutput, Version
from spark_jobs.candidates.job import CandidateOptions, build_candidates
from spark_jobs.embeddings.job import EmbedOptions, embed
from spark_jobs.embeddings.source import Source, read_source
from spark_jobs.training.job import TrainOptions, train
from tests.fixtures.tiny_dataset import START, Events, taste_events, write_dataset

USERS, ITEMS, K = 300, 200, 60
CUT = START + timedelta(days=24)


@dataclass(frozen=True)
class Trained:
    """A version with all steps done, and what it was made from."""

    store: str
    version: Version
    source: Source
    made: StepOutput
    trained: StepOutput
    events: Events


@pytest.fixture(scope="session")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    store = str(tmp_path_factory.mktemp("training"))
    events = taste_events(users=USERS, items=ITEMS, events=9000, seed=21)
    write_dataset(store, events, users=USERS, items=ITEMS)
    version = SnapshotStore(store, RANKING.name).allocate(generation=3, actor="test")
    source = read_source(spark, store, RANKING.name, DatasetId("tiny"))
    embed(spark, version, source, spec=RANKING, options=EmbedOptions("spectral", 16, 1))
    made = build_candidates(spark, version, source, spec=RANKING, options=CandidateOptions(K, include_seen=False))
    done = train(spark, version, source, spec=RANKING, options=TrainOptions(trees=12, seed=5))
    return Trained(store, version, source, made, done, events)


def moment(seconds: float) -> datetime:
    """The tiny dataset's clock."""
    return START + timedelta(seconds=seconds)
