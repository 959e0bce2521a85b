"""past: what a snapshot built at an earlier moment would have known: everything from the events before it alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from infra.catalog.applications.spec import ApplicationSpec
from infra.catalog.features.ranking import ItemColumns
from infra.contracts.candidates import Int32s, ScoreMap
from infra.snapshots.tables import item_table
from spark_jobs.candidates.job import POPULAR_LENGTH, user_side
from spark_jobs.candidates.popular import popular
from spark_jobs.candidates.retrieval import fit_score_map
from spark_jobs.embeddings.activity import Activity, activity
from spark_jobs.embeddings.fit import Algorithm, Embedding, fit
from spark_jobs.embeddings.interactions import consumed, interactions
from spark_jobs.embeddings.source import Source


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the snapshot itself was made; its past is made the same way."""

    algorithm: Algorithm
    dim: int
    k: int
    include_seen: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Past:
    """One moment's knowledge, in the forms that a snapshot stores.

    embedding, score_map: vectors and the map of their products. activity: of items and users. consumed: user_index, item_index,
    repeats left in. items: the ranker's item side. existed: bool [items], in the catalogue by then. popular: int32, the popular
    list, best first.
    """

    embedding: Embedding
    score_map: ScoreMap
    activity: Activity
    consumed: DataFrame
    items: ItemColumns
    existed: NDArray[np.bool_]
    popular: Int32s
    recipe: Recipe

    def people(self, only: DataFrame | None = None) -> DataFrame:
        """Users with an event by then, or those of `only` (user_index): user_index, user_id, features (float16 bytes), history
        (int32 bytes)."""
        return user_side(self.activity.users(only))


def past_of(
    spark: SparkSession, source: Source, events: DataFrame, *, as_of: datetime, spec: ApplicationSpec, recipe: Recipe
) -> Past:
    """Work it out from `events` alone, which must hold nothing that came after; `as_of` is the moment that ages count to.

    Of the catalogue only what never changes is read from `source`: ids, genres, creators, and when an item came in.
    """
    embedding = fit(
        spark,
        interactions(events, spec),
        n_users=source.n_users,
        n_items=source.n_items,
        algorithm=recipe.algorithm,
        dim=recipe.dim,
        seed=recipe.seed,
    )
    score_map = fit_score_map(embedding.user_vectors, embedding.item_vectors, k=recipe.k)
    active = activity(events, source.items, source.users, as_of=as_of, spec=spec)
    catalogue = _catalogue(source, active.items)
    length = max(POPULAR_LENGTH, recipe.k)
    ranked = popular(events, n_items=source.n_items, length=length, as_of=as_of, spec=spec)
    first_seen = catalogue["first_seen"].cast(pa.int64()).to_numpy()
    return Past(
        embedding=embedding,
        score_map=score_map,
        activity=active,
        consumed=consumed(events, spec).select("user_index", "item_index"),
        items=item_table(catalogue).columns,
        existed=first_seen <= round(as_of.timestamp() * 1e6),
        popular=_list(ranked, "popular"),
        recipe=recipe,
    )


def of_users(past: Past, users: DataFrame, *, count: int) -> Past:
    """The same past with only some users' vectors; columns of `users` (user_index, ...) go along through retrieval."""
    vectors = past.embedding.user_vectors.join(users, "user_index")
    return dataclasses.replace(
        past, embedding=dataclasses.replace(past.embedding, user_vectors=vectors, n_users=max(1, count))
    )


def _catalogue(source: Source, item_side: DataFrame) -> pa.Table:
    """The item table as the candidates step writes it, with the features of then."""
    features = item_side.toArrow().sort_by("item_index")
    columns = ["item_index", "item_id", "title", "genres", "creator", "first_seen"]
    table = source.items.select(*columns).toArrow().sort_by("item_index")
    for name in features.column_names[1:]:
        table = table.append_column(name, features[name])
    return table.set_column(
        table.schema.get_field_index("first_seen"), "first_seen", table["first_seen"].cast(pa.timestamp("us", "UTC"))
    )


def _list(ranked: pa.Table, name: str) -> Int32s:
    rows = ranked.filter(pa.compute.equal(ranked["list"], name)).sort_by("rank")
    items: Int32s = rows["item_index"].to_numpy().astype(np.int32)
    return items
