"""README's curl lines, held to the routes: each is served, takes its body, and speaks of what the sample world has."""

from __future__ import annotations

import re
import shlex
from typing import cast
from urllib.parse import urlsplit

import pytest
from _bentoml_sdk import Service

from bentos.ranking.service import RankingService
from bentos.web.front import Route
from bentos.web.refusals import numbers_of
from infra.config.settings import CHECKOUT
from infra.local.world.names import GENRES

_ROUTES = (
    "/recommend", "/recommend_many", "/session", "/similar/{item_id}", "/popular", "/users/{user_id}/history", "/explain",
    "/events", "/items/{item_id}",
)  # fmt: skip


def curls() -> list[list[str]]:
    """Each curl's arguments."""
    text = (CHECKOUT / "README.md").read_text().replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("curl ")]


def route_of(arguments: list[str], routes: list[Route]) -> tuple[Route, str, str]:
    """The route, the query string and the body of one curl."""
    address = urlsplit("http://" + next(one for one in arguments if one.startswith("localhost:")))
    body = arguments[arguments.index("-d") + 1] if "-d" in arguments else ""
    method = arguments[arguments.index("-X") + 1] if "-X" in arguments else "POST" if body else "GET"
    found = [
        route
        for route in routes
        if route.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), address.path)
    ]
    assert len(found) == 1, arguments
    return found[0], address.query, body


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    return list(cast("Service[RankingService]", RankingService).inner().routes())


def test_every_curl_is_served_and_its_body_taken(routes: list[Route]) -> None:
    asked = set()
    for arguments in curls():
        route, query, body = route_of(arguments, routes)
        asked.add(route.path)
        numbers_of(route.query, query.encode())
        assert (route.takes is not None) == bool(body)
        if route.takes is not None:
            route.takes.model_validate_json(body)
    assert asked >= set(_ROUTES)


def test_their_ids_and_genres_are_those_of_the_sample_world() -> None:
    text = "\n".join(" ".join(arguments) for arguments in curls())
    named = re.findall(r'"(?:user_id|item_id|pin|recent_items|items)": [\[{]?"(\w+)"', text)
    named += re.findall(r"/(?:similar|users|items)/(\w+)", text)
    assert len(named) >= 10
    assert [one for one in named if not re.fullmatch(r"[ui]00[01]\d{4}", one)] == []
    genres = re.findall(r'categories": \["([^"]+)"', text)
    assert genres and set(genres) <= set(GENRES)
