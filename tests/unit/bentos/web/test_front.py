"""The front as an ASGI application: routes, methods, queries, what it counts, and the one form of errors."""

from __future__ import annotations

import orjson
import pytest
from prometheus_client import REGISTRY
from starlette.types import Message, Receive, Scope, Send

from bentos.web.exchange import BadRequest
from bentos.web.front import Front, error_reply
from infra.contracts.errors import (
    ContractViolation,
    DeadlineExceeded,
    DependencyUnavailable,
    HeadgateError,
    InvalidRequest,
    SnapshotNotFound,
    SnapshotNotLoaded,
    UnknownApplication,
)
from tests.unit.bentos.web.asking import LIMIT, ROUTES, ask


def counted() -> dict[tuple[str, str], float]:
    """Replies so far, by route and status."""
    found = {}
    for metric in REGISTRY.collect():
        if metric.name == "headgate_http_replies":
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    found[sample.labels["route"], sample.labels["status"]] = sample.value
    return found


async def test_replies_are_counted_by_route_and_status_and_never_by_what_a_caller_wrote() -> None:
    before = counted()
    for name in ("ann", "bob", "%FF"):
        await ask("GET", "/people/x", raw=f"/people/{name}")
    await ask("PATCH", "/people/ann")
    await ask("POST", "/add", body=[b"{"])
    await ask("GET", "/breaks")
    for path in ("/nothing", "/nowhere"):
        await ask("GET", path)
    await ask("GET", "/metrics")
    after = counted()
    assert {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)} == {
        ("/people/{name}", "200"): 2,
        ("/people/{name}", "400"): 1,
        ("/people/{name}", "405"): 1,
        ("/add", "400"): 1,
        ("/breaks", "500"): 1,
        ("elsewhere", "404"): 2,
    }


async def test_a_path_s_variable_may_hold_any_text_percent_encoded() -> None:
    answer = await ask("GET", "/people/a/\n", raw="/people/a%2F%0A%00%C3%A9%3A%7B%7D")
    assert answer.json == {"name": "a/\n\x00é:{}"}
    assert (await ask("GET", "/people/x", raw="/people/%FF")).status == 400


async def test_variables_stand_anywhere_in_a_path_and_methods_share_it() -> None:
    pets = await ask("GET", "/people/ann/pets/rex", query="n=3")
    assert pets.json == {"name": "ann", "pet": "rex", "n": 3}
    assert (await ask("DELETE", "/people/ann")).json == {"name": "ann"}
    assert (await ask("PUT", "/people/ann")).headers[b"allow"] == b"DELETE, GET"


@pytest.mark.parametrize(("query", "n"), [("", 20), ("n=1", 1), ("n=200", 200), ("n=007", 7)])
async def test_a_query_s_number_is_taken_or_its_default(query: str, n: int) -> None:
    assert (await ask("GET", "/people/ann/pets/rex", query=query)).json["n"] == n


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("n=0", "n is '0'; wanted a whole number from 1 to 200."),
        ("n=201", "wanted a whole number from 1 to 200."),
        ("n=", "n is ''; wanted"),
        ("n=-1", "n is '-1'; wanted"),
        ("n=1e2", "wanted a whole number"),
        ("n=NaN", "wanted a whole number"),
        ("n=" + "9" * 5000, "wanted a whole number"),
        ("n=%D9%A3", "wanted a whole number"),
        ("n=%FF", "wanted a whole number"),
        ("n=1&n=1", "n is in the query twice; wanted it once."),
        ("m=1", "The query has 'm'; wanted n."),
    ],
)
async def test_a_query_that_will_not_do_is_refused_with_the_allowed_range(query: str, told: str) -> None:
    answer = await ask("GET", "/people/ann/pets/rex", query=query)
    assert (answer.status, answer.error["type"]) == (422, "InvalidRequest")
    assert told in answer.error["message"]
    assert answer.error["mend"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/people/",
        "/people/a/b",
        "/people//pets/b",
        "/people/a/pets/",
        "/add/",
        "//add",
        "/" + "x" * 5000,
    ],
)
async def test_a_path_that_nobody_serves_is_404_in_json(path: str) -> None:
    answer = await ask("GET", path)
    assert (answer.status, answer.error["type"]) == (404, "NotFound")
    assert len(answer.body) < 500


async def test_a_method_that_is_not_served_is_405_and_told_which_are() -> None:
    answer = await ask("DELETE", "/add")
    assert (answer.status, answer.headers[b"allow"]) == (405, b"POST")
    assert answer.error["type"] == "MethodNotAllowed"


async def test_head_is_get_without_a_body() -> None:
    answer = await ask("HEAD", "/people/ann")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers[b"content-length"]) > 0


async def test_whatever_breaks_inside_is_500_without_its_text() -> None:
    answer = await ask("GET", "/breaks")
    assert (answer.status, answer.error["type"]) == (500, "ContractViolation")
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/healthz", "/schema.json", "/static_content/swagger-ui.css"])
async def test_bentoml_answers_what_is_its_own(path: str) -> None:
    assert (await ask("GET", path)).status == 299


async def test_what_is_not_http_goes_to_bentoml() -> None:
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def silent() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    front = Front(inner, lambda: ROUTES, max_body_bytes=LIMIT)
    for kind in ("lifespan", "websocket"):
        await front({"type": kind}, silent, send)
    assert seen == ["lifespan", "websocket"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (InvalidRequest("No."), 422, False),
        (UnknownApplication("No."), 404, False),
        (DependencyUnavailable("Away.", mend="Run: make up"), 503, True),
        (SnapshotNotFound("None."), 503, True),
        (SnapshotNotLoaded("Not in Redis."), 503, True),
        (DeadlineExceeded("Late."), 504, False),
        (ContractViolation("A bug."), 500, False),
        (BadRequest("No.", status=404), 404, False),
    ],
)
def test_an_error_s_status_tells_who_must_act(error: HeadgateError, status: int, retry: bool) -> None:
    reply = error_reply(error, request_id="r")
    assert reply.status == status
    assert ((b"retry-after", b"1") in reply.headers) is retry
    content = orjson.loads(reply.body)
    assert content["error"]["message"] == str(error).removesuffix(error.mend).strip()
    assert content["error"]["mend"] == (error.mend or ("" if status >= 500 else "See /docs for what this route takes."))
