"""bad_examples: for every check, snapshots that it must find fault with, each broken in exactly one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xgboost

from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.candidates import MAX_HISTORY
from infra.snapshots.tables import CANDIDATES, ITEM_TABLE, ITEM_VECTORS, POPULAR
from tests.fixtures.tiny_snapshot import tiny_ranker
from tests.unit.validation.workbench import Row, Workbench, items_of, put, scores_of, with_leaves
from validation.check import Status

INFINITE = float("inf")


@dataclass(frozen=True)
class BadExample:
    """spoil: the one thing that is wrong. says: words of the check's own finding. companions: checks that cannot but fail too,
    and why. example: words of an example that the finding must give, empty where none can be."""

    check: str
    name: str
    spoil: Callable[[Workbench], object]
    says: str
    example: str = ""
    companions: tuple[str, ...] = ()
    status: Status = Status.FAILED

    def __str__(self) -> str:
        return f"{self.check}-{self.name}".replace(" ", "-")


def flip_a_byte(bench: Workbench) -> None:
    name = bench.files(CANDIDATES)[0]
    content = bytearray(bench.version.storage.read(name))
    content[100] ^= 1
    bench.version.storage.write(name, bytes(content))


def drop_a_file(bench: Workbench) -> None:
    bench.version.storage.remove(bench.files(CANDIDATES)[1])


def drop_a_part(bench: Workbench) -> None:
    bench.reseal(parts={name: part for name, part in bench.manifest.parts.items() if name != POPULAR})


def not_parquet(bench: Workbench) -> None:
    bench.version.storage.write(bench.files(CANDIDATES)[0], b"these are no tables")
    bench.reseal()


def more_rows_promised(bench: Workbench) -> None:
    parts = bench.manifest.parts
    bench.reseal(parts={**parts, POPULAR: replace(parts[POPULAR], rows=parts[POPULAR].rows + 1)})


def rename_feature_column(bench: Workbench) -> None:
    bench.edit_table(
        ITEM_TABLE,
        lambda table: table.rename_columns([name.replace("item_trend_log", "other") for name in table.column_names]),
    )


def repeat_item_id(bench: Workbench) -> None:
    bench.edit_table(
        ITEM_TABLE,
        lambda table: table.set_column(1, "item_id", pa.array(["i0", "i0", *table["item_id"].to_pylist()[2:]])),
    )


def shift_item_index(bench: Workbench) -> None:
    bench.edit_table(
        ITEM_TABLE,
        lambda table: table.set_column(0, "item_index", pc.add(table["item_index"], pa.scalar(1, pa.int32()))),
    )


def null_item_feature(bench: Workbench) -> None:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index("item_mean_value")
        values = [None, *table["item_mean_value"].to_pylist()[1:]]
        return table.set_column(at, "item_mean_value", pa.array(values, pa.float32()))

    bench.edit_table(ITEM_TABLE, change)


def nullable_candidates(bench: Workbench) -> None:
    name = bench.files(CANDIDATES)[0]
    table = bench.read(name)
    bench.write(name, table.cast(pa.schema([field.with_nullable(True) for field in table.schema])))
    bench.reseal()


def swap_user_features(bench: Workbench) -> None:
    order = bench.manifest.user_feature_order
    bench.reseal(user_feature_order=(order[1], order[0], *order[2:]))


def drop_user(rows: list[Row]) -> None:
    del rows[3]


def repeat_user(rows: list[Row]) -> None:
    rows.append(dict(rows[3]))


def add_stranger(rows: list[Row]) -> None:
    rows.append({**rows[3], "user_index": 120, "user_id": "stranger", "history": b""})


def swap_names(rows: list[Row]) -> None:
    rows[3]["user_id"], rows[4]["user_id"] = rows[4]["user_id"], rows[3]["user_id"]


def share_a_name(rows: list[Row]) -> None:
    rows[3]["user_id"] = rows[4]["user_id"]


def lose_a_score(row: Row) -> None:
    row["scores"] = cast(bytes, row["scores"])[:-2]


def cut_an_item_in_two(row: Row) -> None:
    row["item_indices"] = cast(bytes, row["item_indices"]) + b"\x01"


def lose_a_feature(row: Row) -> None:
    row["features"] = cast(bytes, row["features"])[:-2]


def remember_too_much(row: Row) -> None:
    row["history"] = np.arange(MAX_HISTORY + 1, dtype="<i4").tobytes()


def shorten(row: Row) -> None:
    put(row, items_of(row)[:-1], scores_of(row)[:-1])


def empty(row: Row) -> None:
    put(row, items_of(row)[:0], scores_of(row)[:0])


def lengthen(bench: Workbench) -> None:
    def change(row: Row) -> None:
        user = int(cast(int, row["user_index"]))
        products = bench.products(user)
        products[np.concatenate([items_of(row), bench.world.histories[user]])] = -INFINITE
        bench.set_items(row, np.append(items_of(row), np.argmax(products)))

    bench.edit_row(change)


def repeat_item(row: Row) -> None:
    items, scores = items_of(row), scores_of(row)
    items[-1], scores[-1] = items[-2], scores[-2]
    put(row, items, scores)


def unknown_item(row: Row) -> None:
    items = items_of(row)
    items[-1] = 300
    put(row, items, scores_of(row))


def negative_item(row: Row) -> None:
    items = items_of(row)
    items[-1] = -1
    put(row, items, scores_of(row))


def unknown_history(row: Row) -> None:
    row["history"] = np.array([300], "<i4").tobytes()


def offer_what_was_consumed(bench: Workbench) -> None:
    def change(row: Row) -> None:
        consumed = bench.world.histories[int(cast(int, row["user_index"]))][0]
        bench.set_items(row, np.append(items_of(row)[:-1], consumed))

    bench.edit_row(change)


def last_score(value: float) -> Callable[[Workbench], object]:
    def change(row: Row) -> None:
        scores = scores_of(row)
        scores[-1] = value
        put(row, items_of(row), scores)

    return lambda bench: bench.edit_row(change)


def first_score(value: float) -> Callable[[Workbench], object]:
    def change(row: Row) -> None:
        scores = scores_of(row)
        scores[0] = value
        put(row, items_of(row), scores)

    return lambda bench: bench.edit_row(change)


def infinite_feature(row: Row) -> None:
    features = np.frombuffer(cast(bytes, row["features"]), "<f2").copy()
    features[0] = INFINITE
    row["features"] = features.tobytes()


def swap_neighbours(row: Row) -> None:
    items, scores = items_of(row), scores_of(row)
    at = int(np.flatnonzero(np.diff(scores.astype(np.float32)))[0])
    items[[at, at + 1]], scores[[at, at + 1]] = items[[at + 1, at]], scores[[at + 1, at]]
    put(row, items, scores)


def break_a_tie(bench: Workbench) -> None:
    """Two neighbours whose scores rounding may make equal, stored as equal, the higher index first."""

    def change(rows: list[Row]) -> None:
        for row in rows:
            items, scores = items_of(row), scores_of(row).astype(np.float64)
            near = np.flatnonzero((scores[:-1] - scores[1:]) / scores[:-1] < 0.001)
            for at in near.tolist():
                scores[at] = scores[at + 1]
                if items[at] < items[at + 1]:
                    items[[at, at + 1]] = items[[at + 1, at]]
                put(row, items, scores)
                return

    bench.edit_rows(change)


def other_scale(row: Row) -> None:
    put(row, items_of(row), scores_of(row) * 2)


def offer_the_worst(share: float) -> Callable[[Workbench], object]:
    def spoil(bench: Workbench) -> None:
        def change(rows: list[Row]) -> None:
            for row in rows[: int(share * len(rows))]:
                user = int(cast(int, row["user_index"]))
                products = bench.products(user)
                products[bench.world.histories[user]] = INFINITE
                bench.set_items(row, np.argsort(products)[: len(items_of(row))])

        bench.edit_rows(change)

    return spoil


def narrow_item_vectors(bench: Workbench) -> None:
    def change(table: pa.Table) -> pa.Table:
        vectors = [vector[:4] for vector in table["vector"].to_pylist()]
        return table.set_column(1, "vector", pa.array(vectors, pa.list_(pa.float32())))

    bench.edit_table(ITEM_VECTORS, change)


def edit_popular(change: Callable[[list[Row]], list[Row]]) -> Callable[[Workbench], object]:
    return lambda bench: bench.edit_table(
        POPULAR, lambda table: pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema)
    )


def without_list(name: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [row for row in rows if row["list"] != name]


def popular_row(**changes: object) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [{**rows[0], **changes}, *rows[1:]]


def scale_vectors(factor: float) -> Callable[[Workbench], object]:
    """Another magnitude throughout: lists, vectors and map agree with each other, not with the live snapshot's scores."""

    def spoil(bench: Workbench) -> None:
        bench.world = replace(bench.world, item_vectors=bench.world.item_vectors * np.float32(factor))

        def change(table: pa.Table) -> pa.Table:
            return table.set_column(1, "vector", pa.array(list(bench.world.item_vectors), pa.list_(pa.float32())))

        bench.edit_table(ITEM_VECTORS, change)

        def score_again(rows: list[Row]) -> None:
            for row in rows:
                bench.set_items(row, items_of(row))

        bench.edit_rows(score_again)

    return spoil


def shuffle_item_names(bench: Workbench) -> None:
    """The same vectors under other items' names: equal scores, other recommendations."""
    order = np.random.default_rng(6).permutation(300)
    bench.edit_table(ITEM_TABLE, lambda table: table.set_column(1, "item_id", table["item_id"].take(pa.array(order))))


def rename_items(bench: Workbench) -> None:
    """A catalogue whose ids were all issued anew: no user keeps a single item."""
    names = pa.array([f"new {item}" for item in range(300)])
    bench.edit_table(ITEM_TABLE, lambda table: table.set_column(1, "item_id", names))


def swap_model_features(model: bytes) -> bytes:
    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    booster.feature_names = [RANKER_FEATURES[1], RANKER_FEATURES[0], *RANKER_FEATURES[2:]]
    return bytes(booster.save_raw("ubj"))


def two_features(model: bytes) -> bytes:
    rng = np.random.default_rng(1)
    data = xgboost.DMatrix(rng.random((50, 2)), label=rng.random(50))
    return bytes(xgboost.train({"nthread": 1}, data, 20).save_raw("ubj"))


def infinite_item_feature(bench: Workbench) -> None:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index("item_mean_value")
        return table.set_column(at, "item_mean_value", pa.array([INFINITE] * table.num_rows, pa.float32()))

    bench.edit_table(ITEM_TABLE, change)


def ranker_metrics(ranker: float | None, retrieval: float) -> Callable[[Workbench], object]:
    figures = {"retrieval": {"ndcg@10": retrieval}} | ({} if ranker is None else {"ranker": {"ndcg@10": ranker}})
    return lambda bench: bench.reseal(ranker=replace(bench.manifest.ranker, metrics=figures))


def rows(change: Callable[[list[Row]], object]) -> Callable[[Workbench], object]:
    return lambda bench: bench.edit_rows(change)


def row(change: Callable[[Row], object]) -> Callable[[Workbench], object]:
    return lambda bench: bench.edit_row(change)


def ranker(change: Callable[[bytes], bytes]) -> Callable[[Workbench], object]:
    return lambda bench: bench.edit_ranker(change)


NO_MAP = ("score_map",)  # what is not the map of an inner product is also not that


BAD_EXAMPLES = (
    BadExample("integrity", "changed byte", flip_a_byte, "1 that is not so", "has digest"),
    BadExample("integrity", "missing file", drop_a_file, "1 that is not so", "is missing"),
    BadExample("integrity", "missing part", drop_a_part, "1 that is not so", "no part 'popular'"),
    BadExample("integrity", "not Parquet", not_parquet, "not so", "is not Parquet"),
    BadExample("integrity", "fewer rows than promised", more_rows_promised, "not so", "has 600 rows, promised 601"),
    BadExample(
        "integrity", "missing column", rename_feature_column, "not so", "no column item_trend_log, wanted numbers"
    ),
    BadExample(
        "integrity",
        "nullable column",
        nullable_candidates,
        "not so",
        "column user_index is int32, wanted int32 not null",
    ),
    BadExample("integrity", "repeated item id", repeat_item_id, "not so", "1 rows of the item table repeat"),
    BadExample("integrity", "gap in the item index", shift_item_index, "not so", "indexes are not 0 to 299"),
    BadExample(
        "integrity", "null feature", null_item_feature, "not so", "item_mean_value of the item table has 1 nulls"
    ),
    BadExample(
        "integrity",
        "infinite feature",
        infinite_item_feature,
        "not so",
        "item_mean_value of the item table has 300 infinite",
    ),
    BadExample(
        "integrity",
        "other definition",
        lambda bench: bench.reseal(definition_hash="0" * 16),
        "not so",
        "definition_hash is 000",
    ),
    BadExample(
        "integrity",
        "another version's manifest",
        lambda bench: bench.reseal(version="v7"),
        "not so",
        "the manifest is of ranking/v7, here ranking/v2",
    ),
    BadExample("integrity", "other order of features", swap_user_features, "not so", "the order of user features is"),
    BadExample(
        "integrity", "score map without a scale", lambda bench: bench.reseal(score_scale=0.0), "not so", "scale is 0.0"
    ),
    BadExample(
        "coverage", "missing user", rows(drop_user), "1 of 120 users have no list", "user 'u3' (index 3): no list"
    ),
    BadExample("coverage", "user twice", rows(repeat_user), "no list or more than one", "user 'u3' (index 3): 2 lists"),
    BadExample(
        "coverage", "user without events", rows(add_stranger), "1 of 121 users have a list and no event", "'stranger'"
    ),
    BadExample(
        "coverage", "swapped names", rows(swap_names), "2 of 120 users have their list under an id", "'u4' (index 3)"
    ),
    BadExample("coverage", "shared name", rows(share_a_name), "not theirs alone", "'u4' (index 3)"),
    BadExample(
        "record_shape", "score lost", row(lose_a_score), "1 of 120 users have a record that is cut short", "'u7'"
    ),
    BadExample("record_shape", "item cut in two", row(cut_an_item_in_two), "cut short", "1 of 4 packed values"),
    BadExample("record_shape", "feature lost", row(lose_a_feature), "cut short", "'u7' (index 7)"),
    BadExample("record_shape", "history too long", row(remember_too_much), "cut short", "'u7' (index 7)"),
    BadExample(
        "length", "shortened list", row(shorten), "1 of 120 users have a list of another length", "99 items, wanted 100"
    ),
    BadExample("length", "empty list", row(empty), "another length", "'u7' (index 7): 0 items"),
    BadExample("length", "list too long", lengthen, "another length", "101 items, wanted 100"),
    BadExample(
        "duplicates",
        "item twice",
        row(repeat_item),
        "1 of 120 users have an item more than once",
        "'u7' (index 7): 1 repeated",
    ),
    BadExample(
        "catalogue",
        "unknown item",
        row(unknown_item),
        "candidates outside the catalogue",
        "'u7' (index 7): 1 unknown",
        NO_MAP,
    ),
    BadExample("catalogue", "negative index", row(negative_item), "outside the catalogue", "1 unknown items", NO_MAP),
    BadExample(
        "catalogue",
        "unknown history",
        row(unknown_history),
        "history outside the catalogue",
        "1 unknown items of history",
    ),
    BadExample(
        "unseen", "consumed item", offer_what_was_consumed, "1 of 120 users are shown what", "1 items consumed before"
    ),
    BadExample(
        "finite_scores",
        "NaN last",
        last_score(float("nan")),
        "1 of 120 users have a NaN score",
        "'u7' (index 7): 1 NaN",
        NO_MAP,
    ),
    BadExample("finite_scores", "NaN first", first_score(float("nan")), "have a NaN score", "1 NaN", NO_MAP),
    BadExample("finite_scores", "infinite", first_score(INFINITE), "have an infinite score", "1 infinite", NO_MAP),
    BadExample(
        "finite_scores",
        "infinite feature",
        row(infinite_feature),
        "an infinite feature",
        "1 infinite features",
    ),
    BadExample(
        "score_range",
        "negative score",
        last_score(-0.5),
        "1 of 120 users have a negative score",
        "'u7' (index 7): 1 negative",
        NO_MAP,
    ),
    BadExample(
        "score_order",
        "rising score",
        row(swap_neighbours),
        "1 of 120 users have a list out of order",
        "'u7' (index 7): 1 places",
    ),
    BadExample("score_order", "tie the wrong way round", break_a_tie, "out of order", "1 places"),
    BadExample(
        "score_map",
        "another scale",
        row(other_scale),
        "100 other scores in the lists of 1 of 120 sampled users",
        "'u7' (index 7): 100 scores",
    ),
    BadExample("recall", "the worst items", offer_the_worst(0.5), "recall@100", "user 'u", ("score_distribution",)),
    BadExample("recall", "a few bad lists", offer_the_worst(0.05), "recall@100", "user 'u", status=Status.WARNED),
    BadExample(
        "recall",
        "user without a vector",
        lambda bench: bench.drop_user_vector(7),
        "1 of 120 sampled users have no vector",
        "'u7'",
        NO_MAP,
    ),
    BadExample("recall", "vectors of another width", narrow_item_vectors, "recall@100 0.0000", "0.000", NO_MAP),
    BadExample("popular", "no popular list", edit_popular(without_list("popular")), "0 popular items"),
    BadExample(
        "popular", "no trending list", edit_popular(without_list("trending")), "0 trending items", status=Status.WARNED
    ),
    BadExample(
        "popular",
        "item twice",
        edit_popular(lambda found: [found[1], *found[1:]]),
        "300 popular items, 1 of them repeated",
    ),
    BadExample("popular", "unknown item", edit_popular(popular_row(item_index=300)), "1 of them repeated, unknown"),
    BadExample("popular", "NaN score", edit_popular(popular_row(score=float("nan"))), "without a finite score"),
    BadExample("score_distribution", "another magnitude", scale_vectors(8.0), "PSI"),
    BadExample("score_distribution", "a shift", scale_vectors(1.6), "PSI", status=Status.WARNED),
    BadExample("overlap", "no item in common", rename_items, "mean Jaccard of the first 100 0.000", "user 'u"),
    BadExample("overlap", "other recommendations", shuffle_item_names, "mean Jaccard", "user 'u", status=Status.WARNED),
    BadExample("ranker_model", "broken file", ranker(lambda model: model[: len(model) // 2]), "does not load"),
    BadExample("ranker_model", "no model at all", ranker(lambda model: b"\x00not a model"), "does not load"),
    BadExample(
        "ranker_model",
        "NaN scores",
        ranker(lambda model: with_leaves(model, float("nan"))),
        "32 of 32 sampled lists",
        "user 'u",
    ),
    BadExample(
        "ranker_model",
        "one score for all",
        ranker(lambda model: with_leaves(model, 0.25)),
        "one score for all items in 32",
        status=Status.WARNED,
    ),
    BadExample("ranker_model", "other features", ranker(two_features), "it takes 2 features"),
    BadExample(
        "ranker_model", "features swapped", ranker(swap_model_features), "its feature 0 is 'user_recent_activity_log'"
    ),
    BadExample("ranker_model", "other trees", ranker(lambda model: tiny_ranker(trees=3)), "it has 3 trees"),
    BadExample(
        "ranker_quality",
        "worse than retrieval",
        ranker_metrics(0.05, 0.1),
        "ndcg@10 0.0500 ranked",
        status=Status.WARNED,
    ),
    BadExample("ranker_quality", "no figures", ranker_metrics(None, 0.1), "no ndcg@10 of ranker", status=Status.WARNED),
)
