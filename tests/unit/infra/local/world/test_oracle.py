"""The truth behind the world: it agrees with itself and predicts what people then do better than popularity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from infra.contracts.errors import DatasetNotFound, InvalidRequest
from infra.local.world.oracle import Oracle
from tests.unit.infra.local.world.conftest import Written


def test_true_taste_predicts_held_out_clicks_better_than_popularity(written: Written) -> None:
    """The share of other items that the clicked one outranks, mean over the last week's clicks."""
    cut = written.size.start + timedelta(days=21)
    past, held_out = written.events[written.events.day < 21], written.events[written.events.day >= 21]
    clicks = held_out[held_out.event_type == "click"].drop_duplicates("user_id")
    assert len(clicks) > 150
    at = clicks.item_id.str[1:].astype(int).to_numpy()
    popularity = past.item_id.value_counts().reindex(written.items.item_id, fill_value=0).to_numpy()
    true = written.oracle.matrix(clicks.user_id.tolist(), cut + timedelta(days=3))
    rows = np.arange(len(at))
    by_taste = (true < true[rows, at][:, None]).mean()
    by_popularity = ((popularity < popularity[at][:, None]) + 0.5 * (popularity == popularity[at][:, None])).mean()
    top = np.argsort(-true, axis=1)[:, :20]
    most_popular = np.argsort(-popularity, kind="stable")[:20]
    assert by_popularity > 0.6, "popularity is no straw man"
    assert by_taste > by_popularity + 0.1
    assert (top == at[:, None]).any(axis=1).mean() > 1.6 * np.isin(at, most_popular).mean()


def test_pairs_and_the_matrix_say_the_same(written: Written) -> None:
    moment = written.size.start + timedelta(days=9, hours=5)
    users, items = written.users.user_id.tolist()[:20], written.items.item_id.tolist()
    matrix = written.oracle.matrix(users, moment)
    assert matrix.shape == (20, 600) and matrix.dtype == np.float32
    pairs = written.oracle.score(users, [items[7 * number] for number in range(20)], moment)
    np.testing.assert_allclose(pairs, matrix[np.arange(20), np.arange(20) * 7], rtol=1e-4)


def test_an_item_that_is_not_born_yet_cannot_be_wanted(written: Written) -> None:
    moment = written.size.start + timedelta(days=2)
    unborn = (written.items.first_seen > moment + timedelta(seconds=1)).to_numpy()
    scores = written.oracle.matrix(["u0000003"], moment)[0]
    assert unborn.any()
    assert np.isneginf(scores[unborn]).all() and np.isfinite(scores[~unborn]).all()


def test_what_a_user_wants_changes_with_time(written: Written) -> None:
    start = written.size.start
    early, late = (written.oracle.matrix(["u0000003"], start + timedelta(days=day))[0] for day in (1, 27))
    born = np.isfinite(early)
    assert 0.3 < np.corrcoef(early[born], late[born])[0, 1] < 0.999


def test_the_oracle_refuses_whom_it_does_not_know_and_a_time_without_a_zone(written: Written) -> None:
    now = datetime(2024, 4, 10, tzinfo=UTC)
    with pytest.raises(InvalidRequest, match="no user 'nobody'"):
        written.oracle.score(["nobody"], ["i0000001"], now)
    with pytest.raises(InvalidRequest, match="no item 'nothing'"):
        written.oracle.score(["u0000001"], ["nothing"], now)
    with pytest.raises(InvalidRequest, match="2 users and 1 items; wanted pairs"):
        written.oracle.score(["u0000001", "u0000002"], ["i0000001"], now)
    with pytest.raises(InvalidRequest, match="has no zone"):
        written.oracle.matrix(["u0000001"], datetime(2024, 4, 10))


def test_a_folder_without_a_world_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"no world\.json\. Run: python -m infra\.local\.world generate --out"):
        Oracle.open(tmp_path)
