"""openapi: the OpenAPI document of a route table, and the offline Swagger page that shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bentos.web.exchange import Exchange, Reply, json_reply
from bentos.web.front import BENTOML_PATHS, Route
from bentos.web.refusals import Number
from infra.contracts.ids import MAX_ID_BYTES

_WHAT = {
    "/metrics": "Prometheus metrics",
    "/livez": "200 while the process lives",
    "/healthz": "The same as /livez",
    "/schema.json": "BentoML's own description, for its clients",
}

_SWAGGER = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>headgate API</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css">
<link rel="icon" href="data:,">
<style>body { margin: 0 }</style>
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script src="./static_content/swagger-ui-standalone-preset.js"></script>
<script src="./static_content/swagger-initializer.js"></script>
</body>
</html>
"""
# BentoML ships Swagger UI and serves it from /static_content, so this works offline; its own index page is not used because
# it loads a tag manager from another host.


class ErrorDetail(BaseModel):
    """What was wrong and what to do."""

    type: str
    message: str
    mend: str


class ErrorReply(BaseModel):
    """Every error of every route."""

    error: ErrorDetail
    request_id: str


def document(*, title: str, version: str, description: str, routes: Sequence[Route]) -> dict[str, object]:
    """OpenAPI 3.1 of all listed routes and of what BentoML answers itself."""
    models = {model for route in routes for model in (route.takes, route.gives) if model is not None} | {ErrorReply}
    ordered = sorted(models, key=lambda model: model.__name__)
    references, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    schema_of = {model: references[(model, "validation")] for model in ordered}
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        if route.listed:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    for path in BENTOML_PATHS:
        paths[path] = {
            "get": {"summary": _WHAT[path], "tags": ["infrastructure"], "responses": {"200": {"description": "OK"}}}
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }


def _operation(route: Route, schema_of: dict[type[BaseModel], dict[str, object]]) -> dict[str, object]:
    responses: dict[str, object] = {}
    for status in route.statuses:
        described: dict[str, object] = {"description": HTTPStatus(status).phrase}
        if route.gives is not None:
            described["content"] = {"application/json": {"schema": schema_of[route.gives]}}
        responses[str(status)] = described
    for status in sorted({*route.errors, 500}):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": schema_of[ErrorReply]}},
        }
    operation: dict[str, object] = {
        "summary": route.summary,
        "description": route.description,
        "operationId": f"{route.method.lower()}{re.sub('[{}]', '', route.path).replace('/', '_')}",
        "tags": ["infrastructure" if route.path == "/readyz" else "service"],
        "responses": responses,
    }
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[route.takes]}},
        }
    parameters = [_query_parameter(name, number) for name, number in route.query.items()]
    parameters += [_path_parameter(name) for name in re.findall(r"\{(\w+)\}", route.path)]
    if parameters:
        operation["parameters"] = parameters
    return operation


def _query_parameter(name: str, number: Number) -> dict[str, object]:
    schema = {"type": "integer", "minimum": number.least, "maximum": number.most, "default": number.default}
    return {"name": name, "in": "query", "required": False, "description": number.description, "schema": schema}


def _path_parameter(name: str) -> dict[str, object]:
    """Text in one segment, `/` written as %2F."""
    schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def documentation_routes(describe: Sequence[Route], *, title: str, version: str, description: str) -> list[Route]:
    """GET /docs and GET /docs.json over a route table."""
    content = document(title=title, version=version, description=description, routes=describe)

    async def docs_json(exchange: Exchange) -> Reply:
        return json_reply(content)

    async def docs(exchange: Exchange) -> Reply:
        return Reply(_SWAGGER, content_type=b"text/html; charset=utf-8")

    return [
        Route("GET", "/docs.json", docs_json, "OpenAPI", listed=False),
        Route("GET", "/docs", docs, "Swagger page", listed=False),
    ]
