"""What is written: exact sizes, equal bytes for equal seeds, bounded memory, and refusals that change nothing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tracemalloc
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config.settings import CHECKOUT
from infra.contracts.errors import InvalidRequest
from infra.local.world.generate import generate
from infra.local.world.names import GENRES, creator_names
from infra.local.world.sessions import days
from infra.local.world.size import WorldSize
from tests.unit.infra.local.world.conftest import Written

CLI = [sys.executable, "-m", "infra.local.world", "generate"]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)


def test_equal_seeds_give_equal_bytes_in_another_process_too_and_others_do_not(tmp_path: Path) -> None:
    generate(WorldSize(users=150, items=90, events=2_000, seed=11, days=5), tmp_path / "here")
    sizes = ("--users", "150", "--items", "90", "--events", "2000", "--days", "5")
    done = command("--out", str(tmp_path / "there"), *sizes, "--seed", "11")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert {name: report[name] for name in ("users", "items", "events", "seed")} == {
        "users": 150,
        "items": 90,
        "events": 2000,
        "seed": 11,
    }
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    generate(WorldSize(users=150, items=90, events=2_000, seed=12, days=5), tmp_path / "other")
    other = digests(tmp_path / "other")
    same = [name for name, digest in digests(tmp_path / "here").items() if other[name] == digest]
    assert same == [], "a part that the seed does not reach"


def test_sizes_are_exact_and_every_name_is_known(written: Written) -> None:
    assert len(written.events) == 40_000
    assert written.users.user_id.is_unique and len(written.users) == 400
    assert written.items.item_id.is_unique and len(written.items) == 600
    assert set(written.events.user_id) <= set(written.users.user_id)
    assert set(written.events.item_id) <= set(written.items.item_id)
    assert set(written.events.event_type) == {"view", "click", "purchase"}
    record = json.loads((written.folder / "world.json").read_text())
    assert (record["format"], record["events"], record["seed"]) == ("headgate-world/1", 40_000, 7)


def test_a_days_file_is_in_the_order_of_time(written: Written) -> None:
    files = sorted((written.folder / "events").iterdir())
    assert [file.name for file in files] == [f"day-{day:04d}.parquet" for day in range(28)]
    for file in files:
        assert pq.read_table(file)["event_time"].to_pandas().is_monotonic_increasing


def test_items_have_titles_genres_creators_and_prices(written: Written) -> None:
    items = written.items
    assert items.title.str.len().between(5, 60).all() and items.title.nunique() > 400
    assert items.genres.map(len).between(1, 3).all()
    assert {genre for names in items.genres for genre in names} <= set(GENRES)
    assert items.genres.map(lambda names: len(set(names)) == len(names)).all()
    assert items.creator.notna().all() and items.creator.nunique() > 5
    assert (items.price > 0).all()


def test_users_have_demographics_with_gaps_as_a_shop_knows_them(written: Written) -> None:
    users = written.users
    assert users.age.dropna().between(13, 90).all()
    assert set(users.gender.dropna()) <= {"female", "male", "other"}
    for column in ("age", "gender", "country"):
        assert 0.01 < users[column].isna().mean() < 0.25, column


def test_creators_are_all_called_differently() -> None:
    names = creator_names(5000)
    assert len(set(names)) == 5000


@given(st.integers(0, 3_000_000), st.integers(1, 400))
def test_the_days_events_sum_to_the_size(events: int, n_days: int) -> None:
    counts = days(WorldSize(users=1, items=1, events=events, seed=0, days=n_days))
    assert counts.sum() == events
    assert len(counts) == n_days and (counts >= 0).all()


@pytest.mark.parametrize(("users", "items", "events"), [(1, 1, 0), (1, 1, 1), (1, 1, 40), (3, 2, 25), (2, 700, 33)])
def test_the_smallest_worlds_are_worlds(tmp_path: Path, users: int, items: int, events: int) -> None:
    for seed in range(4):
        out = tmp_path / str(seed)
        generate(WorldSize(users=users, items=items, events=events, seed=seed, days=3), out)
        written = sum(pq.read_metadata(file).num_rows for file in (out / "events").iterdir())
        assert written == events


def test_memory_holds_a_day_at_most(tmp_path: Path) -> None:
    """Five times the events over five times the days need no more at the peak."""
    peaks = {}
    for n_days in (2, 10):
        tracemalloc.start()
        generate(WorldSize(users=500, items=500, events=10_000 * n_days, seed=1, days=n_days), tmp_path / str(n_days))
        peaks[n_days] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    bytes_an_event = 4 + 4 + 8 + 1 + 4
    assert peaks[10] - peaks[2] < 0.25 * 80_000 * bytes_an_event, peaks


@pytest.mark.parametrize(
    ("field", "value", "seen"),
    [
        ("users", 0, "users is 0; wanted 1 or more"),
        ("items", -1, "items is -1; wanted 1 or more"),
        ("events", -1, "events is -1; wanted 0 or more"),
        ("days", 0, "days is 0; wanted 1 or more"),
        ("days", 4000, "days is 4000; wanted at most 3660"),
        ("seed", -1, "seed is -1; wanted 0 or more"),
        ("users", 2**31, "an index is an int32"),
        ("start", datetime(2024, 4, 1), "has no zone; wanted aware UTC"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_what_was_seen_and_wanted(field: str, value: object, seen: str) -> None:
    sizes: dict[str, object] = {"users": 5, "items": 5, "events": 5, "seed": 1, field: value}
    with pytest.raises(InvalidRequest, match=seen):
        WorldSize(**sizes)  # type: ignore[arg-type]


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear")
    done = command("--out", str(tmp_path), "--users", "5", "--items", "5", "--events", "5")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: InvalidRequest: {tmp_path} is not an empty folder. Name another --out or empty it first."
    )
    assert digests(tmp_path).keys() == {"mine.txt"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InvalidRequest, match="is not an empty folder"):
        generate(WorldSize(users=5, items=5, events=5, seed=1), tmp_path / "out")


def test_a_purchase_has_the_items_price_and_nothing_else_has_a_value(written: Written) -> None:
    bought = written.events[written.events.event_type == "purchase"]
    price = written.items.set_index("item_id").price.loc[bought.item_id]
    np.testing.assert_array_equal(bought.value.to_numpy(), price.to_numpy())
    assert written.events[written.events.event_type != "purchase"].value.isna().all()


def test_times_are_aware_and_lie_in_the_worlds_days(written: Written) -> None:
    times = written.events.event_time
    assert str(times.dt.tz) == "UTC"
    last = written.size.start + pd.Timedelta(days=28, hours=2)  # a session that began before midnight goes on
    assert times.min() >= written.size.start and times.max() < last
