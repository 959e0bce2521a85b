"""The OpenAPI document: every listed route, what it takes, gives and may answer, and references that all lead somewhere."""

from __future__ import annotations

import json
import re
from typing import cast

import pytest

from bentos.ranking.schema import RecommendReply, RecommendRequest
from bentos.web.exchange import Exchange, Reply, json_reply
from bentos.web.front import BENTOML_PATHS, Route
from bentos.web.openapi import document, documentation_routes
from bentos.web.refusals import Number

Document = dict[str, dict[str, dict[str, dict[str, object]]]]


async def _nothing(exchange: Exchange) -> Reply:
    return json_reply({})


ROUTES = [
    Route("POST", "/recommend", _nothing, "A list", takes=RecommendRequest, gives=RecommendReply, errors=(422, 503)),
    Route("GET", "/users/{user_id}/history", _nothing, "A user", query={"limit": Number("how many", 5, 1, 9)}),
    Route("GET", "/hidden", _nothing, "Not listed", listed=False),
]


@pytest.fixture
def described() -> Document:
    return cast(Document, document(title="t", version="1", description="d", routes=ROUTES))


def test_listed_routes_and_bentoml_s_own_are_described_and_no_others(described: Document) -> None:
    assert set(described["paths"]) == {"/recommend", "/users/{user_id}/history", *BENTOML_PATHS}


def test_every_error_of_a_route_has_the_one_form(described: Document) -> None:
    responses = cast(dict[str, dict[str, object]], described["paths"]["/recommend"]["post"]["responses"])
    assert set(responses) == {"200", "422", "500", "503"}
    for status in ("422", "500", "503"):
        assert "ErrorReply" in json.dumps(responses[status])
    assert "RecommendReply" in json.dumps(responses["200"])


def test_path_and_query_parameters_are_told_apart(described: Document) -> None:
    parameters = cast(list[dict[str, object]], described["paths"]["/users/{user_id}/history"]["get"]["parameters"])
    assert [(row["name"], row["in"], row["required"]) for row in parameters] == [
        ("limit", "query", False),
        ("user_id", "path", True),
    ]
    assert parameters[0]["schema"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 5}
    assert parameters[1]["schema"] == {"type": "string", "minLength": 1, "maxLength": 256}


def test_every_reference_leads_to_a_schema(described: Document) -> None:
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert references
    assert references <= set(described["components"]["schemas"])


async def test_the_swagger_page_loads_nothing_from_another_host() -> None:
    (docs,) = [
        route
        for route in documentation_routes(ROUTES, title="t", version="1", description="d")
        if route.path == "/docs"
    ]
    page = (await docs.handler(cast(Exchange, None))).body.decode()
    assert re.findall(r'(?:src|href)="([^"]+)"', page)
    assert "//" not in "".join(re.findall(r'(?:src|href)="([^"]+)"', page))
