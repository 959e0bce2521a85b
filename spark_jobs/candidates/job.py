"""job: the candidates step: every user's record, the popular lists and the item table in an attempt folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import USER_FEATURES
from infra.contracts.errors import ContractViolation
from infra.snapshots.storage import Storage
from infra.snapshots.tables import CANDIDATES, CANDIDATES_SCHEMA, ITEM_TABLE, POPULAR
from infra.snapshots.versions import StepOutput, Version
from spark_jobs import frames
from spark_jobs.candidates.popular import popular
from spark_jobs.candidates.retrieval import fit_score_map, packed, packed_lists, prepare
from spark_jobs.embeddings import job as embed_job
from spark_jobs.embeddings.interactions import consumed
from spark_jobs.embeddings.source import Source

STEP = "candidates"
POPULAR_LENGTH = 1000
"""The popular and trending lists have this many items, or as many as a user's list where that is longer."""


@dataclass(frozen=True, slots=True)
class CandidateOptions:
    """k: items a user; include_seen: also those that the user has consumed."""

    k: int
    include_seen: bool


def build_candidates(
    spark: SparkSession,
    version: Version,
    source: Source,
    *,
    spec: ApplicationSpec,
    options: CandidateOptions,
    advance: Callable[[int], None] = lambda _: None,
) -> StepOutput:
    """Run the step on the version's latest embeddings; `advance(1)` is called after each of its 3 stages."""
    started = time.monotonic()
    embedded = version.latest(embed_job.STEP)
    with version.attempt(STEP, parents={"embeddings": embedded.path, "dataset": source.dataset}) as attempt:
        out = version.storage.below(attempt.path)
        inputs = version.storage.below(embedded.path)
        embedding = embed_job.read_embedding(spark, version, embedded)
        score_map = fit_score_map(embedding.user_vectors, embedding.item_vectors, k=options.k)
        people = user_side(frames.read(spark, inputs, embed_job.USER_ACTIVITY))
        embedding = dataclasses.replace(embedding, user_vectors=embedding.user_vectors.join(people, "user_index"))
        seen = None if options.include_seen else consumed(source.events, spec)
        ready = prepare(spark, embedding, seen, k=options.k, score_map=score_map)
        searching = time.monotonic()
        written = frames.write(ready.users, out, CANDIDATES, schema=CANDIDATES_SCHEMA, through=ready.lists)
        search_s = time.monotonic() - searching
        advance(1)
        as_of = datetime.fromisoformat(str(embedded.figures["as_of"]))
        length = max(POPULAR_LENGTH, options.k)
        table = popular(source.events, n_items=source.n_items, length=length, as_of=as_of, spec=spec)
        with out.open(f"{POPULAR}.parquet", "wb") as file:
            pq.write_table(table, file)
        advance(1)
        n_items = write_item_table(out, source, inputs)
        advance(1)
        attempt.figures.update(
            {
                "users": written.rows,
                "items": n_items,
                "candidates_per_user": options.k,
                "include_seen": options.include_seen,
                "score_scale": score_map.scale,
                "popular": table.num_rows,
                "embedder": embedding.algorithm,
                "dim": embedding.dim,
                "as_of": as_of.isoformat(),
                "search_seconds": round(search_s, 2),
                "seconds": round(time.monotonic() - started, 2),
            }
        )
    return version.output(attempt.path)


def user_side(activity: DataFrame) -> DataFrame:
    """Users with at least one event: user_index, user_id, features (float16 bytes), history (int32 bytes)."""
    active = activity.where(F.col("n_events") > 0)
    return active.mapInArrow(_pack_users, "user_index int, user_id string, features binary, history binary")


def _pack_users(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        features = np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in USER_FEATURES])
        columns = [
            batch.column("user_index"),
            batch.column("user_id"),
            packed(features.astype("<f2"), np.full(batch.num_rows, len(USER_FEATURES))),
            packed_lists(batch.column("history")),
        ]
        yield pa.RecordBatch.from_arrays(columns, ["user_index", "user_id", "features", "history"])


def write_item_table(out: Storage, source: Source, inputs: Storage) -> int:
    """The catalogue with its features, by item index; returns how many items."""
    columns = ["item_index", "item_id", "title", "genres", "creator", "first_seen"]
    items = source.items.select(*columns).toArrow().sort_by("item_index")
    with inputs.open(embed_job.ITEM_ACTIVITY) as file:
        features = pq.read_table(file).sort_by("item_index")
    if not items["item_index"].equals(features["item_index"]):
        raise ContractViolation(f"{items.num_rows} items and {features.num_rows} rows of item features do not match.")
    for name in features.column_names[1:]:
        items = items.append_column(name, features[name])
    with out.open(f"{ITEM_TABLE}.parquet", "wb") as file:
        pq.write_table(items, file)
    return int(items.num_rows)
