"""spoilings: one way each in which a build could go wrong, applied to a good snapshot on the workbench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xgboost

from infra.catalog.features.ranking import RANKER_FEATURES
from infra.contracts.candidates import MAX_HISTORY
from infra.snapshots.chunks import read_chunks, root_of
from infra.snapshots.tables import CANDIDATES, CHUNKS, ITEM_TABLE, ITEM_VECTORS, POPULAR
from tests.unit.validation.workbench import Row, Workbench, items_of, put, scores_of

INFINITE = float("inf")


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


def forget_a_chunk(bench: Workbench) -> None:
    manifest = bench.manifest
    chunks = read_chunks(bench.version, manifest)[1:]
    (name,) = manifest.parts[CHUNKS].files
    bench.write(name, bench.read(name).slice(1))
    bench.reseal(parts={**manifest.parts, CHUNKS: bench.version.part(name)}, records_root=root_of(chunks))


def without_chunks(bench: Workbench) -> None:
    """As an earlier release sealed it."""
    parts = {name: part for name, part in bench.manifest.parts.items() if name != CHUNKS}
    bench.reseal(parts=parts, records_root="")


def swap_user_features(bench: Workbench) -> None:
    order = bench.manifest.user_feature_order
    bench.reseal(user_feature_order=(order[1], order[0], *order[2:]))


def drop_user(rows: list[Row]) -> None:
    del rows[3]


def repeat_user(rows: list[Row]) -> None:
    rows.append(dict(rows[3]))


def add_stranger(rows: list[Row]) -> None:
    rows.append({**rows[3], "user_index": 120, "user_id": "stranger", "history": b"", "consumed": b""})


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


def forget_an_item(row: Row) -> None:
    row["consumed"] = cast(bytes, row["consumed"])[4:]


def invent_a_consumed_item(row: Row) -> None:
    known = np.frombuffer(cast(bytes, row["consumed"]), "<i4")
    other = next(item for item in range(300) if item not in known)
    row["consumed"] = np.sort(np.append(known, other)).astype("<i4").tobytes()


def consume_twice(row: Row) -> None:
    row["consumed"] = cast(bytes, row["consumed"])[:4] + cast(bytes, row["consumed"])


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
