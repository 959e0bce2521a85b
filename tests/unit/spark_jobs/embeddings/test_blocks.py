"""User blocks hold the interaction matrix exactly, and sums over them do not depend on how they were cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from scipy import sparse

from infra.contracts.candidates import Float32s
from spark_jobs.embeddings import blocks
from spark_jobs.embeddings.blocks import Block


def _batches(user: list[int], item: list[int], weight: list[float]) -> list[pa.RecordBatch]:
    table = pa.table(
        {
            "user_index": pa.array(user, pa.int32()),
            "item_index": pa.array(item, pa.int32()),
            "weight": pa.array(weight, pa.float32()),
        }
    )
    batches: list[pa.RecordBatch] = table.to_batches(max_chunksize=3)
    return batches


def test_a_partition_becomes_blocks_of_bounded_size_that_hold_every_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_EVENTS", 5)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 3)
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 9, 60), rng.integers(0, 6, 60)
    built = list(blocks._build_partition(6, False, iter(_batches(user.tolist(), item.tolist(), [1.0] * 60))))
    wanted = sparse.csr_matrix((np.ones(60), (user, item)), shape=(9, 6)).toarray()
    seen = np.zeros((9, 6))
    for part, block in blocks.unpack(iter(built), n_items=6):
        assert part == user.min()
        assert len(block.users) <= 3 and (len(block.users) == 1 or block.matrix.sum() <= 5)
        seen[block.users] += block.matrix.toarray()
    np.testing.assert_array_equal(seen, wanted)


def test_blocks_do_not_depend_on_the_order_in_which_rows_arrive() -> None:
    user, item, weight = [3, 1, 1, 2, 3], [0, 1, 0, 2, 2], [1.0, 2.0, 1.0, 1.0, 2.0]
    order = [4, 2, 0, 3, 1]
    one = list(blocks._build_partition(3, False, iter(_batches(user, item, weight))))
    shuffled = _batches([user[at] for at in order], [item[at] for at in order], [weight[at] for at in order])
    assert one == list(blocks._build_partition(3, False, iter(shuffled)))


def test_an_empty_partition_makes_no_block() -> None:
    assert list(blocks._build_partition(3, False, iter([]))) == []


def _twice(block: Block) -> Float32s:
    return np.asarray(2 * block.matrix.T @ np.ones((block.matrix.shape[0], 3)), np.float32)


def test_a_sum_over_the_blocks_is_that_of_the_whole_matrix(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "SLICE_BYTES", 48)
    rng = np.random.default_rng(1)
    pairs = {(int(u), int(i)) for u, i in zip(rng.integers(0, 50, 300), rng.integers(0, 23, 300), strict=True)}
    rows = spark.createDataFrame([(u, i, 1.0) for u, i in pairs], "user_index int, item_index int, weight float")
    built = blocks.build(rows, n_items=23, partitions=3)
    degrees = np.bincount([item for _, item in pairs], minlength=23)
    wanted = np.repeat(2.0 * degrees[:, None], 3, axis=1)
    np.testing.assert_array_equal(blocks.total(built, _twice, n_items=23, columns=3), wanted)
