"""What the Snapshots page is told of canaries and shadows: what runs, how it looks, how it ended, and what may be done about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.contracts.canaries import CanaryMode
from infra.contracts.snapshots import State
from tests.unit.dags.plugins.snapshots.conftest import Rights, Shop
from tests.unit.dags.plugins.snapshots.test_reading import OVERVIEW, rows, told

LONG = timedelta(days=30)


def actions(overview: dict[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    return {name: (row["trial_action"], row["action"]) for name, row in rows(overview).items()}


def test_what_may_go_live_beside_something_may_be_tried_and_what_is_tried_may_be_ended(
    reader: TestClient, shop: Shop
) -> None:
    early = shop.judged()
    assert actions(told(reader)) == {early.version: (None, "promote")}, "there is nothing to try it beside"
    first, second, third = shop.live(), shop.live(), shop.live()
    shop.back()
    rejected, staged = shop.judged(State.REJECTED), shop.staged()
    may = {
        early.version: ("canary", "promote"),
        first.version: ("canary", "rollback"),
        second.version: (None, None),
        third.version: ("canary", "promote"),
        rejected.version: (None, None),
        staged.version: (None, None),
    }
    assert actions(told(reader)) == may
    shop.tried(early)
    may |= {
        early.version: ("canary_end", "promote"),
        first.version: (None, "rollback"),
        third.version: (None, "promote"),
    }
    assert actions(told(reader)) == may, "one at a time"


@pytest.mark.parametrize("mode", list(CanaryMode))
def test_what_runs_is_told_with_its_share_its_start_and_its_newest_look(
    reader: TestClient, shop: Shop, mode: CanaryMode
) -> None:
    live, tried = shop.live(), shop.judged()
    canary = shop.tried(tried, mode).canary
    assert canary is not None
    row = rows(told(reader))[tried.version]
    assert (row["state"], row["live"]) == ("CANARY", False)
    trial = row["trial"]
    assert (trial["mode"], trial["fraction"], trial["look"], trial["report"]) == (mode, 0.2, None, False)
    assert trial["since"] == canary.started_at.isoformat().replace("+00:00", "Z")
    shop.looked()
    overview = told(reader)
    seen = rows(overview)[tried.version]["trial"]["look"]
    assert seen["verdict"] == "waits" and seen["summary"].endswith(": waits") and seen["because"]
    assert rows(overview)[live.version]["trial"] is None
    assert (overview["live"]["version"], overview["live"]["canary"]["started_by"]) == (live.version, "airflow:ada")


def test_a_look_at_another_canary_is_not_taken_for_one_at_this(reader: TestClient, shop: Shop) -> None:
    shop.live()
    tried = shop.judged()
    shop.tried(tried)
    shop.looked()
    shop.promotion.end_canary(tried.version, actor="bea", reason="again", refused=False)
    shop.tried(tried)
    assert rows(told(reader))[tried.version]["trial"]["look"] is None


def test_how_the_last_one_ended_is_told_and_its_page_is_served_and_can_run_nothing(
    reader: TestClient, shop: Shop
) -> None:
    shop.live()
    tried = shop.judged()
    shop.tried(tried)
    shop.looked(after=LONG)
    row = rows(told(reader))[tried.version]
    trial = row["trial"]
    assert (row["state"], trial["since"], trial["report"]) == ("VALIDATED", None, True)
    assert (trial["look"]["verdict"], trial["fraction"]) == ("expired", 0.2)
    answer = reader.get(f"{OVERVIEW}/versions/{tried.version}/canary")
    assert answer.status_code == 200 and f"ranking/{tried.version}" in answer.text
    policy = answer.headers["content-security-policy"].split("; ")
    assert "sandbox" in policy and "default-src 'none'" in policy and not any("script" in rule for rule in policy)
    kept = reader.get(f"{OVERVIEW}/versions/{tried.version}/canary?download=true")
    assert kept.headers["content-disposition"] == f'attachment; filename="ranking-{tried.version}-canary.html"'


def test_a_page_that_is_not_there_is_told_of_and_one_that_is_is_refused_to_whom_it_does_not_concern(
    reader: TestClient, as_user: Callable[[Rights], TestClient], shop: Shop
) -> None:
    version = shop.live()
    path = f"{OVERVIEW}/versions/{version.version}/canary"
    answer = reader.get(path)
    assert answer.status_code == 404
    assert f"No canary of ranking/{version.version} was judged to an end." in answer.json()["detail"]
    assert as_user(Rights(reads=frozenset())).get(path).status_code == 403


def test_the_flips_tell_of_canaries_by_the_version_that_was_tried(reader: TestClient, shop: Shop) -> None:
    live, one, other = shop.live(), shop.judged(), shop.judged()
    shop.tried(one)
    shop.promotion.end_canary(one.version, actor="bea", reason="worse", refused=True)
    shop.tried(other, CanaryMode.SHADOW)
    shop.promotion.load(one, limit_fraction=1.0)
    shop.promotion.flip(one, actor="bea", reason="after all", force=True)
    fields = ("kind", "version", "before", "mode", "fraction", "ended")
    assert [tuple(flip[name] for name in fields) for flip in told(reader)["flips"][:4]] == [
        ("flip", one.version, live.version, "shadow", 0.2, other.version),
        ("canary", other.version, live.version, "shadow", 0.2, None),
        ("canary-rollback", one.version, live.version, "canary", 0.2, None),
        ("canary", one.version, live.version, "canary", 0.2, None),
    ]


def test_a_canary_that_goes_live_has_not_been_ended_in_passing(reader: TestClient, shop: Shop) -> None:
    shop.live()
    tried = shop.judged()
    shop.tried(tried)
    shop.promotion.flip(tried, actor="canary", reason="no worse")
    newest = told(reader)["flips"][0]
    assert (newest["kind"], newest["version"], newest["ended"]) == ("flip", tried.version, None)


def test_what_is_tried_is_shown_however_old_it_is(reader: TestClient, shop: Shop) -> None:
    tried, live = shop.judged(), shop.live()
    newer = [shop.judged() for _ in range(2)]
    shop.tried(tried)
    overview = told(reader, f"{OVERVIEW}?newest=1")
    assert list(rows(overview)) == [newer[-1].version, live.version, tried.version]
    assert overview["older"] == 1


def test_with_redis_away_what_runs_is_known_by_the_journal_and_cannot_be_ended(reader: TestClient, shop: Shop) -> None:
    shop.live()
    tried = shop.judged()
    shop.tried(tried)
    shop.server.kill()
    overview = told(reader)
    row = rows(overview)[tried.version]
    assert (row["trial"]["fraction"], row["trial"]["look"]) == (0.2, None)
    assert all(pair == (None, None) for pair in actions(overview).values())


def test_a_canary_that_was_ended_by_a_rollback_leaves_nothing_to_show(reader: TestClient, shop: Shop) -> None:
    shop.live()
    shop.live()
    tried = shop.judged()
    shop.tried(tried)
    shop.back()
    overview = told(reader)
    assert rows(overview)[tried.version]["trial"] is None
    assert (overview["flips"][0]["kind"], overview["flips"][0]["ended"]) == ("rollback", tried.version)
