"""exact: the truth for a sample of users, by multiplying the snapshot's own vectors; no index, no approximation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.contracts.candidates import Float32s, Int32s, ScoreMap
from infra.contracts.snapshots import Manifest
from infra.snapshots.storage import Storage
from infra.snapshots.tables import ITEM_VECTORS, USER_VECTORS
from validation.scan import KeptList
from validation.summary import Expectation

BLOCK_ROWS = 65_536

PRODUCT_TOLERANCE = 1e-5
"""Two programs add the same products in different orders: inner products closer than this share of the largest are equal."""

SCORE_TOLERANCE = 4e-3
"""A stored score is rounded to 11 bits (5e-4 of itself); this share is beyond what rounding and summing order can explain."""


@dataclass(slots=True)
class _Best:
    """The k best inner products of one user so far, and those of the items in her list."""

    wanted: int
    listed: Int32s
    products: Float32s
    best: Float32s
    largest: float = 0.0


def exact_sample(
    storage: Storage,
    manifest: Manifest,
    *,
    lists: Mapping[int, KeptList],
    expectation: Expectation,
) -> pd.DataFrame:
    """One row a user of `lists`: recall (share of her exact best items, ties counted as found) and n_wrong_scores.

    Recall is measured against the k-th best inner product among the items that she may be shown, k being the wanted length:
    a listed item that reaches it is one of the best, whichever of several equal ones was taken. NaN where k is 0.
    n_wrong_scores: listed items whose stored score is not the declared map of their inner product.
    """
    users = np.array(sorted(lists), np.int32)
    vectors, has_vector = _user_vectors(storage, manifest, users)
    wanted = expectation.wanted_length(users)
    state = [
        _Best(int(k), np.unique(lists[int(user)].items), np.zeros(0, np.float32), np.zeros(0, np.float32))
        for user, k in zip(users, wanted, strict=True)
    ]
    for one in state:
        one.products = np.full(len(one.listed), np.nan, np.float32)
    row, consumed = expectation.consumption.of(users)
    if expectation.include_seen:
        row, consumed = row[:0], consumed[:0]
    n_items = expectation.n_items
    for index, block in _vectors(storage, manifest, ITEM_VECTORS, "item_index"):
        if block.shape[1] != vectors.shape[1]:
            continue
        position = np.full(n_items, -1, np.int64)
        inside = (index >= 0) & (index < n_items)
        position[index[inside]] = np.flatnonzero(inside)
        products = vectors @ block.T
        _take_listed(state, products, position)
        at = position[consumed]
        products[row[at >= 0], at[at >= 0]] = -np.inf
        _take_best(state, products)
    score_map = ScoreMap(manifest.score_scale)
    rows: list[dict[str, object]] = []
    for user, found, one in zip(users.tolist(), has_vector, state, strict=True):
        kept = lists[user]
        mine = consumed[row == len(rows)]
        rows.append(
            {
                "user_index": user,
                "user_id": kept.user_id,
                "has_vector": bool(found),
                "recall": _recall(one, mine),
                "n_wrong_scores": _wrong_scores(kept, one, score_map),
            }
        )
    return pd.DataFrame(rows, columns=["user_index", "user_id", "has_vector", "recall", "n_wrong_scores"])


def _recall(one: _Best, consumed: Int32s) -> float:
    if one.wanted == 0:
        return float("nan")
    if len(one.best) < one.wanted:
        return 0.0
    threshold = float(np.min(one.best)) - PRODUCT_TOLERANCE * one.largest
    hits = (one.products >= threshold) & ~np.isin(one.listed, consumed)
    return min(1.0, int(np.count_nonzero(hits)) / one.wanted)


def _wrong_scores(kept: KeptList, one: _Best, score_map: ScoreMap) -> int:
    n = min(len(kept.items), len(kept.bits))
    products = one.products[np.searchsorted(one.listed, kept.items[:n])]
    with np.errstate(invalid="ignore"):  # NaN where the item has no vector: no score is right
        wanted = score_map.stored(products).astype(np.float64)
    seen = kept.bits[:n].view(np.float16).astype(np.float64)
    slack = PRODUCT_TOLERANCE * one.largest / score_map.scale + 1e-6
    return int(np.count_nonzero(~(np.abs(seen - wanted) <= SCORE_TOLERANCE * wanted + slack)))


def _take_listed(state: list[_Best], products: Float32s, position: NDArray[np.int64]) -> None:
    n_items = len(position)
    for row, one in enumerate(state):
        known = (one.listed >= 0) & (one.listed < n_items)
        at = np.where(known, position[np.where(known, one.listed, 0)], -1)
        one.products[at >= 0] = products[row, at[at >= 0]]


def _take_best(state: list[_Best], products: Float32s) -> None:
    for row, one in enumerate(state):
        if one.wanted == 0:
            continue
        mine = products[row][products[row] > -np.inf]
        one.largest = max(one.largest, float(np.max(np.abs(mine), initial=0.0)))
        best = np.concatenate([one.best, mine])
        one.best = np.partition(best, len(best) - one.wanted)[-one.wanted :] if len(best) > one.wanted else best


def _user_vectors(storage: Storage, manifest: Manifest, users: Int32s) -> tuple[Float32s, NDArray[np.bool_]]:
    """float32 [len(users), d], rows of zeros for users without a vector, and who has one."""
    found = np.zeros(len(users), bool)
    out = np.zeros((len(users), 0), np.float32)
    for index, block in _vectors(storage, manifest, USER_VECTORS, "user_index"):
        if out.shape[1] == 0:
            out = np.zeros((len(users), block.shape[1]), np.float32)
        at = np.minimum(np.searchsorted(users, index), max(len(users) - 1, 0))
        wanted = users[at] == index if len(users) else np.zeros(len(index), bool)
        if block.shape[1] == out.shape[1]:
            out[at[wanted]] = block[wanted]
            found[at[wanted]] = True
    return out, found


def _vectors(storage: Storage, manifest: Manifest, part: str, index: str) -> Iterator[tuple[Int32s, Float32s]]:
    """The part's vectors in blocks: indexes int32 [n] and float32 [n, d]."""
    for name in sorted(manifest.parts[part].files):
        with storage.open(name) as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=BLOCK_ROWS, columns=[index, "vector"]):
                if batch.num_rows:
                    yield batch.column(index).to_numpy(), _matrix(batch.column("vector"))


def _matrix(column: pa.ListArray) -> Float32s:
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if len(flat) % len(column):
        return np.zeros((len(column), 0), np.float32)
    matrix: Float32s = flat.reshape(len(column), -1)
    return matrix
