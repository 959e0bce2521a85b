"""A snapshot's network: read and checked when it is pinned, and the same to the bit whatever else is scored with a row."""

from __future__ import annotations

import numpy as np
import pytest

from infra.catalog.features.ranking import NETWORK_FEATURES
from infra.contracts.errors import SnapshotCorrupt
from infra.snapshots.network import ROWS, Network
from tests.fixtures.tiny_snapshot import tiny_network

INPUTS = len(NETWORK_FEATURES)


def test_rows_are_scored_whatever_their_number_and_company() -> None:
    network = Network(tiny_network(), inputs=INPUTS)
    rows = np.random.default_rng(1).normal(size=(2 * ROWS + 30, INPUTS)).astype(np.float32)
    whole = network.scores(rows)
    total = rows[:, [NETWORK_FEATURES.index(name) for name in ("trees_score", "last_match_1")]].sum(axis=1)
    np.testing.assert_allclose(whole, 1 / (1 + np.exp(-total)), rtol=1e-5)
    for n in (0, 1, ROWS - 1, ROWS, ROWS + 1):
        assert network.scores(rows[:n]).tobytes() == whole[:n].tobytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read"),
        (b"no network", "cannot be read"),
        (tiny_network()[:-40], "cannot be read"),
        (tiny_network(inputs=INPUTS + 1), f"wanted one tensor.float. .n, {INPUTS}"),
    ],
    ids=["empty", "other bytes", "cut short", "another input more"],
)
def test_what_is_no_network_of_these_inputs_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(SnapshotCorrupt, match=says):
        Network(content, inputs=INPUTS)
