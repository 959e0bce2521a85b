"""Two descriptions of one service: what BentoML tells of its typed APIs, and our OpenAPI document, say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from _bentoml_sdk import Service

from bentos.ranking.rows import WIDTH
from bentos.ranking.service import RankingService
from bentos.web.openapi import document

Json = dict[str, Any]

_FRONT = {"/recommend", "/recommend_many", "/session", "/events"}
"""Typed in BentoML, answered by the front."""


def inlined(schema: object, definitions: Mapping[str, object]) -> object:
    """Without references, titles and prose. Of a field's several forms the first: BentoML tells no more."""
    if isinstance(schema, list):
        return [inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[str(schema["$ref"]).rpartition("/")[2]]
        return inlined({**cast(Json, target), **{key: schema[key] for key in schema if key != "$ref"}}, definitions)
    if "anyOf" in schema:
        others = {key: value for key, value in schema.items() if key != "anyOf"}
        return inlined({**others, **cast(Json, inlined(schema["anyOf"][0], definitions))}, definitions)
    return {
        key: inlined(value, definitions)
        for key, value in schema.items()
        if key not in ("$defs", "root_input") and not (key in ("title", "description") and isinstance(value, str))
    }


@pytest.fixture(scope="module")
def ours() -> Json:
    service = cast("Service[RankingService]", RankingService).inner()  # wired, not started
    listed = [route for route in service.routes() if route.listed]
    described = document(title="t", version="1", description="d", routes=listed)
    found: Json = json.loads(json.dumps(described))
    return found


@pytest.fixture(scope="module")
def bentoml_s() -> dict[str, Json]:
    """By route."""
    schema = cast("Service[RankingService]", RankingService).schema()
    routes: list[Json] = json.loads(json.dumps(schema))["routes"]
    return {route["route"]: route for route in routes}


def test_every_typed_api_is_a_route_of_the_document(ours: Json, bentoml_s: dict[str, Json]) -> None:
    assert set(bentoml_s) >= _FRONT
    assert {path for path in ours["paths"] if "requestBody" in ours["paths"][path].get("post", {})} >= _FRONT


@pytest.mark.parametrize("path", sorted(_FRONT))
def test_both_take_the_same(path: str, ours: Json, bentoml_s: dict[str, Json]) -> None:
    schema = ours["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    told = bentoml_s[path]["input"]
    assert inlined(schema, ours["components"]["schemas"]) == inlined(told, told.get("$defs", {}))


def test_both_take_rows_of_that_many_features_and_give_a_list_of_numbers(
    ours: Json, bentoml_s: dict[str, Json]
) -> None:
    """BentoML tells of arrays what dtype and shape they have, and of no null or deadline."""
    told, operation = bentoml_s["/score_rows"], ours["paths"]["/score_rows"]["post"]
    schema = inlined(operation["requestBody"]["content"]["application/json"]["schema"], ours["components"]["schemas"])
    row = cast(Json, schema)["properties"]["rows"]["items"]
    assert (row["minItems"], row["maxItems"], row["items"]["type"]) == (WIDTH, WIDTH, "number")
    assert told["input"]["properties"]["rows"]["shape"] == [-1, WIDTH]
    given = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert cast(Json, inlined(given, ours["components"]["schemas"]))["items"] == {"type": "number"}
    assert told["output"]["shape"] == [-1]


@pytest.mark.parametrize("path", sorted(_FRONT))
def test_both_give_the_same(path: str, ours: Json, bentoml_s: dict[str, Json]) -> None:
    schema = ours["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    told = bentoml_s[path]["output"]
    assert inlined(schema, ours["components"]["schemas"]) == inlined(told, told.get("$defs", {}))
