"""Simulated traffic against a real service: every visit is counted, what it did is in the log, and faults are told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from infra.config.settings import settings
from infra.contracts.errors import DatasetNotFound, DependencyUnavailable, InvalidRequest
from infra.local.__main__ import app
from infra.local.visits import Seen, Tally, Traffic, in_turns, open_visitors, send_visits
from infra.local.world.generate import generate
from infra.local.world.size import WorldSize
from infra.local.world.visitors import Responses, Visitors
from tests.fixtures.nearline import logged
from tests.fixtures.redis_server import free_port
from tests.fixtures.service import Served, feed

USERS, ITEMS = 120, 300
"""Of the tiny snapshot."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated world whose users and items have the tiny snapshot's ids."""
    folder = tmp_path_factory.mktemp("visits") / "world"
    generate(WorldSize(users=USERS, items=ITEMS, events=0, seed=7, days=28), folder)
    for name, letter, count in (("users", "u", USERS), ("items", "i", ITEMS)):
        path = folder / f"{name}.parquet"
        ids = pa.array([f"{letter}{number}" for number in range(count)])
        pq.write_table(
            pq.read_table(path).set_column(0, f"{letter}", ids).rename_columns({letter: f"{name[:-1]}_id"}), path
        )
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with feed(tmp_path_factory.mktemp("service")) as served:
        yield served


def visit(*words: str) -> Result:
    return CliRunner().invoke(app, ["visit", *words])


class Eager(Visitors):
    """Everybody clicks and buys the second item."""

    def respond(self, user_ids: Sequence[str], lists: Sequence[Sequence[str]], at: datetime) -> Responses:
        n = len(user_ids)
        return Responses(np.ones(n, np.int64), np.ones(n, np.bool_))


def test_every_visit_is_counted_and_what_it_did_is_in_the_log(served: Served, world: Path) -> None:
    before = len(logged(served.stage.client))
    done = visit("--seconds", "3", "--per-second", "60", "--world", str(world), "--url", served.url)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["errors"] == {} and told["lists"] == 180
    assert told["snapshots"] == {
        "predictions_v1": {name: told[name] for name in ("lists", "clicks", "purchases", "click_through")}
    }
    assert 0 <= told["purchases"] <= told["clicks"] and 0 < told["clicks"] < 180
    assert told["click_through"] == round(told["clicks"] / 180, 4)
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert len(logged(served.stage.client)) - before == told["clicks"] + told["purchases"]


def test_a_purchase_is_of_what_the_same_user_clicked_at_its_price(served: Served, world: Path) -> None:
    rng = np.random.default_rng(1)
    visitors, before = Eager.open(world, rng), len(logged(served.stage.client))
    tally = send_visits(served.url, visitors, Traffic(1.0, 80.0, users=40), rng, advance=lambda n: None)
    assert tally.seen == {"predictions_v1": Seen(lists=80, clicks=80, purchases=80)}
    events = logged(served.stage.client)[before:]
    assert len(events) == len({event.event_id for event in events}) == 160
    clicks, purchases = (
        [(event.user_id, event.item_id) for event in events if event.event_type == kind]
        for kind in ("click", "purchase")
    )
    assert sorted(clicks) == sorted(purchases)
    assert set(Counter(user_id for user_id, _ in clicks).values()) == {2}, "40 users, each of them twice"
    paid = {event.item_id: event.values["value"] for event in events if event.event_type == "purchase"}
    assert paid == pytest.approx({item_id: visitors.price(item_id) for item_id in paid})


def test_everybody_comes_once_before_anybody_comes_again() -> None:
    users = [f"u{number}" for number in range(7)]
    came = list(islice(in_turns(users, np.random.default_rng(2)), 21))
    for turn in range(3):
        assert sorted(came[7 * turn : 7 * turn + 7]) == users
    assert came[:7] != users


def test_each_snapshot_has_its_own_figures(served: Served, world: Path) -> None:
    """A flip while people come: the lists of before and after are told apart."""
    rng, came = np.random.default_rng(3), []

    def advance(n: int) -> None:
        came.append(n)
        if len(came) == 20:
            version = served.stage.flip_live().version
            served.wait_status(lambda status: version in str(status["live"]))

    tally = send_visits(served.url, open_visitors(world, rng), Traffic(1.0, 60.0), rng, advance=advance)
    assert len(came) == 60 and len(tally.seen) == 2
    assert min(seen.lists for seen in tally.seen.values()) >= 19
    assert sum(seen.lists for seen in tally.seen.values()) + tally.errors.total() == 60


def test_requests_that_fail_are_counted_by_what_was_asked(served: Served, world: Path) -> None:
    rng = np.random.default_rng(4)
    refused = send_visits(
        served.url, open_visitors(world, rng), Traffic(0.2, 50.0, items=5000), rng, advance=lambda n: None
    )
    assert refused.errors == Counter({"recommend: 422": 10}) and refused.seen == {}
    assert refused.fields()["click_through"] is None and refused.fields()["p99_ms"] is None


def test_a_service_that_does_not_answer_is_told_with_the_mend(world: Path) -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(DependencyUnavailable, match="Run: make status"):
        send_visits(
            f"http://127.0.0.1:{free_port()}", open_visitors(world, rng), Traffic(1, 1), rng, advance=lambda n: None
        )


def test_a_service_of_other_data_is_told_before_anybody_comes(served: Served, tmp_path: Path) -> None:
    generate(WorldSize(users=5, items=5, events=0, seed=7), tmp_path / "other")
    done = visit("--world", str(tmp_path / "other"), "--url", served.url)
    assert isinstance(done.exception, InvalidRequest)
    assert "who is not of this world: it was built of other events. Run: make snapshot" in str(done.exception)


def test_without_a_world_the_mend_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path))
    settings.cache_clear()
    done = visit()
    monkeypatch.undo()
    settings.cache_clear()
    assert isinstance(done.exception, DatasetNotFound)
    assert str(tmp_path / "sample") in str(done.exception) and "Run: make demo" in str(done.exception)


@pytest.mark.parametrize("wrong", [(0.0, 5.0, 0, 20), (5.0, -1.0, 0, 20), (5.0, 5.0, -1, 20), (5.0, 5.0, 0, 0)])
def test_traffic_that_cannot_be_is_refused(wrong: tuple[float, float, int, int]) -> None:
    with pytest.raises(InvalidRequest, match="wanted"):
        Traffic(*wrong)


def test_without_visits_nothing_is_claimed() -> None:
    told = Tally().fields()
    assert (told["lists"], told["click_through"], told["snapshots"], told["p50_ms"]) == (0, None, {}, None)
