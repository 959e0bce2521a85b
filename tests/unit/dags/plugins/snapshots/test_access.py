"""Who gets an answer from the Snapshots page's app: nobody without a login, nobody without the right to read the DAG."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from dags.plugins.snapshots.access import CANARY, CANARY_END, PROMOTE
from dags.plugins.snapshots.routes import app
from tests.unit.dags.plugins.snapshots.conftest import Rights, Shop

ROUTES = [route for route in app.routes if isinstance(route, APIRoute)]
FIELDS = {"application": "ranking", "version": "v1", "name": "page.js"}
PATHS = [re.sub(r"\{(\w+)\}", lambda found: FIELDS[found[1]], route.path) for route in ROUTES]


@pytest.mark.parametrize("path", [*PATHS, "/openapi.json", "/docs"])
def test_without_a_login_every_address_is_refused(path: str) -> None:
    answer = TestClient(app).get(path)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})


@pytest.mark.parametrize("path", PATHS)
def test_who_may_read_no_application_is_refused_everywhere(as_user: Callable[[Rights], TestClient], path: str) -> None:
    assert as_user(Rights(reads=frozenset())).get(path).status_code == 403


def test_an_application_that_one_may_not_read_is_refused_like_one_that_is_not_there(reader: TestClient) -> None:
    answer = reader.get("/applications/fraud")
    assert (answer.status_code, answer.json()["detail"]) == (403, "You may not read the snapshots of 'fraud'.")


def test_there_is_no_way_to_write() -> None:
    assert len(app.routes) == len(ROUTES), "no documentation, no mount, nothing but these"
    assert {method for route in ROUTES for method in route.methods} == {"GET"}


def test_the_page_is_told_which_buttons_would_be_refused(as_user: Callable[[Rights], TestClient], shop: Shop) -> None:
    told = as_user(Rights(triggers=frozenset({PROMOTE}))).get("/applications").json()
    assert told == {
        "applications": [{"name": "ranking", "title": "Feed ranking"}],
        "may_promote": True,
        "may_roll_back": False,
        "may_try": False,
        "may_end_trial": False,
        "canary_fraction": 0.05,
    }


def test_trying_and_ending_a_trial_are_rights_of_their_own(as_user: Callable[[Rights], TestClient], shop: Shop) -> None:
    for dag_id, right in ((CANARY, "may_try"), (CANARY_END, "may_end_trial")):
        told = as_user(Rights(triggers=frozenset({dag_id}))).get("/applications").json()
        assert [name for name, may in told.items() if may is True] == [right]
