"""job: the embed step: from a sealed dataset to vectors and activity tables in an attempt folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import ITEM_FEATURES, USER_FEATURES
from infra.contracts.candidates import Float32s
from infra.contracts.errors import ContractViolation
from infra.snapshots.storage import Storage
from infra.snapshots.tables import ITEM_VECTORS, USER_SCALE, USER_VECTORS
from infra.snapshots.versions import StepOutput, Version
from spark_jobs import frames
from spark_jobs.embeddings.activity import activity
from spark_jobs.embeddings.fit import Algorithm, Embedding, fit
from spark_jobs.embeddings.interactions import interactions
from spark_jobs.embeddings.source import Source
from spark_jobs.embeddings.vectors import ITEM_VECTORS_SCHEMA, USER_VECTORS_SCHEMA, matrix_of, vector_column

STEP = "embeddings"
ITEM_ACTIVITY = "item_activity.parquet"
USER_ACTIVITY = "user_activity.parquet"
"""The step's tables beside the two folders of vectors. The users' is a folder, written by the workers."""

ITEM_ACTIVITY_SCHEMA = pa.schema(
    [pa.field("item_index", pa.int32(), nullable=False)] + [pa.field(name, pa.float32()) for name in ITEM_FEATURES]
)
USER_ACTIVITY_SCHEMA = pa.schema(
    [pa.field("user_index", pa.int32(), nullable=False), pa.field("user_id", pa.string(), nullable=False)]
    + [pa.field(name, pa.float32()) for name in USER_FEATURES]
    + [pa.field("history", pa.list_(pa.int32()), nullable=False), pa.field("n_events", pa.int32(), nullable=False)]
)

_ROW_GROUP = 65_536


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """What a run of the step may choose."""

    algorithm: Algorithm
    dim: int
    seed: int


def embed(
    spark: SparkSession,
    version: Version,
    source: Source,
    *,
    spec: ApplicationSpec,
    options: EmbedOptions,
    advance: Callable[[int], None] = lambda _: None,
) -> StepOutput:
    """Run the step; `advance(1)` is called after each of its 4 stages. The step's folder is complete or does not count."""
    started = time.monotonic()
    with version.attempt(STEP, parents={"dataset": source.dataset}) as attempt:
        out = version.storage.below(attempt.path)
        embedding = fit(
            spark,
            interactions(source.events, spec),
            n_users=source.n_users,
            n_items=source.n_items,
            algorithm=options.algorithm,
            dim=options.dim,
            seed=options.seed,
        )
        advance(1)
        write_item_vectors(out, embedding)
        users = frames.write(embedding.user_vectors, out, USER_VECTORS, schema=USER_VECTORS_SCHEMA)
        if users.rows != source.n_users:
            raise ContractViolation(f"{users.rows} users were embedded; the dataset has {source.n_users}.")
        advance(1)
        active = activity(source.events, source.items, source.users, as_of=source.last_event, spec=spec)
        table = active.items.toArrow().sort_by("item_index").select(ITEM_ACTIVITY_SCHEMA.names)
        with out.open(ITEM_ACTIVITY, "wb") as file:
            pq.write_table(table.cast(ITEM_ACTIVITY_SCHEMA), file)
        advance(1)
        frames.write(active.users(), out, USER_ACTIVITY, schema=USER_ACTIVITY_SCHEMA)
        advance(1)
        attempt.figures.update(_figures(embedding, source))
        attempt.figures["seconds"] = round(time.monotonic() - started, 2)
    return version.output(attempt.path)


def _figures(embedding: Embedding, source: Source) -> dict[str, object]:
    singular = embedding.singular_values
    return {
        "algorithm": embedding.algorithm,
        "dim": embedding.dim,
        "users": source.n_users,
        "items": source.n_items,
        "events": source.n_events,
        "items_without_vector": int(np.sum(~np.any(embedding.item_vectors != 0, axis=1))),
        "singular_values": {
            "first": float(singular[0]),
            "median": float(np.median(singular)),
            "last": float(singular[-1]),
        }
        if len(singular)
        else {},
        "as_of": source.last_event.isoformat(),
    }


def write_item_vectors(out: Storage, embedding: Embedding) -> None:
    """One file below item_vectors/, row i for item i; it also says how item vectors make a user's."""
    vectors, projection = embedding.item_vectors, embedding.projection
    if projection is None:
        raise ContractViolation("An embedding that was read back, without its projection, is not to be written again.")
    name = f"{ITEM_VECTORS}/part-00000.parquet"
    schema = ITEM_VECTORS_SCHEMA.with_metadata({USER_SCALE: json.dumps(projection.scale.tolist())})
    with out.open(name, "wb") as file, pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for low in range(0, len(vectors), _ROW_GROUP):
            rows = np.ascontiguousarray(vectors[low : low + _ROW_GROUP])
            index = pa.array(np.arange(low, low + len(rows), dtype=np.int32))
            columns = [index, vector_column(rows), pa.array(projection.weights[low : low + len(rows)])]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def read_item_vectors(out: Storage) -> Float32s:
    """The inverse of `write_item_vectors`: float32 [n_items, d]."""
    tables = []
    for name in out.files(ITEM_VECTORS):
        with out.open(name) as file:
            tables.append(pq.read_table(file))
    return matrix_of(pa.concat_tables(tables).sort_by("item_index")["vector"])


def read_embedding(spark: SparkSession, version: Version, output: StepOutput) -> Embedding:
    """A completed step's vectors."""
    out = version.storage.below(output.path)
    users = frames.read(spark, out, USER_VECTORS)
    n_users = int(str(output.figures["users"]))
    empty = np.zeros(0, np.float32)
    return Embedding(read_item_vectors(out), users, n_users, str(output.figures["algorithm"]), empty)
