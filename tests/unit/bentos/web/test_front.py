"""The front as an ASGI application: routes, methods, bounded and slow bodies, and the one form of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson
import pytest
from prometheus_client import REGISTRY
from pydantic import BaseModel, ConfigDict
from starlette.types import Message, Receive, Scope, Send

from bentos.web import exchange as exchange_module
from bentos.web.exchange import BadRequest, Exchange, Reply, json_reply
from bentos.web.front import Front, Route, error_reply
from bentos.web.refusals import Number
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

LIMIT = 1000


class Numbers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    a: int
    b: int


async def _add(exchange: Exchange) -> Reply:
    numbers = await exchange.json(Numbers)
    return json_reply({"sum": numbers.a + numbers.b})


async def _name(exchange: Exchange) -> Reply:
    return json_reply({**exchange.variables, **exchange.numbers})


async def _breaks(exchange: Exchange) -> Reply:
    raise RuntimeError("a secret of the inside")


async def _inner(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"bentoml"})


ROUTES = [
    Route("POST", "/add", _add, "Adds"),
    Route("GET", "/people/{name}", _name, "Names"),
    Route("GET", "/people/{name}/pets/{pet}", _name, "Pets", query={"n": Number("how many", 20, least=1, most=200)}),
    Route("DELETE", "/people/{name}", _name, "Forgets"),
    Route("GET", "/breaks", _breaks, "Breaks"),
    Route("POST", "/add_much", _add, "Adds", max_body_bytes=2 * LIMIT),
]


class Answer:
    """What the front sent."""

    def __init__(self, sent: list[Message]) -> None:
        self.status: int = sent[0]["status"]
        self.headers: dict[bytes, bytes] = dict(sent[0]["headers"])
        self.body: bytes = sent[1]["body"]

    @property
    def json(self) -> dict[str, object]:
        content: dict[str, object] = orjson.loads(self.body)
        return content

    @property
    def error(self) -> dict[str, str]:
        content: dict[str, str] = orjson.loads(self.body)["error"]
        return content


async def sent_by(
    method: str,
    path: str,
    *,
    body: Iterable[bytes] = (b"",),
    headers: dict[str, str] | None = None,
    raw: str = "",
    query: str = "",
) -> list[Message]:
    """One request through a front of its own; the body comes in these chunks, then the caller falls silent."""
    front = Front(_inner, lambda: ROUTES, max_body_bytes=LIMIT)
    chunks = list(body)
    waiting: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": at < len(chunks) - 1} for at, chunk in enumerate(chunks)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": (raw or path).encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    await front(scope, receive, send)
    return sent


async def ask(
    method: str,
    path: str,
    *,
    body: Iterable[bytes] = (b"",),
    headers: dict[str, str] | None = None,
    raw: str = "",
    query: str = "",
) -> Answer:
    return Answer(await sent_by(method, path, body=body, headers=headers, raw=raw, query=query))


async def test_a_body_in_pieces_is_read_whole_and_every_reply_carries_its_request_id() -> None:
    answer = await ask("POST", "/add", body=[b'{"a": 1,', b' "b": 2', b"}"])
    assert (answer.status, answer.json) == (200, {"sum": 3})
    assert len(answer.headers[b"x-request-id"]) == 32
    assert int(answer.headers[b"content-length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("body", "status", "name", "told"),
    [
        ([b""], 400, "MalformedRequest", "The body is not JSON"),
        ([b"{"], 400, "MalformedRequest", "The body is not JSON"),
        (
            [b'{"a": NaN, "b": Infinity}'],
            400,
            "MalformedRequest",
            "The body is not JSON: a is NaN, and JSON has neither",
        ),
        ([b'{"a": 1, "b": {"c": ["NaN", [], [1, -Infinity, NaN]]}}'], 400, "MalformedRequest", "b.c.2.1 is -Infinity"),
        ([b"Infinity"], 400, "MalformedRequest", "The body is not JSON: the body is Infinity"),
        ([b'{"a": NaN, "b": }'], 400, "MalformedRequest", "The body is not JSON: unexpected character"),
        ([b'{"c": NaN, "a":' + b"[" * 900], 400, "MalformedRequest", "The body is not JSON"),
        ([b'{"a": 1e999, "b": 1}'], 422, "InvalidRequest", "a: "),
        ([b'{"a": "NaN", "b": 1}'], 422, "InvalidRequest", "a: "),
        ([b'{"a": "\xff"}'], 400, "MalformedRequest", "The body is not JSON"),
        ([b"[" * 900], 400, "MalformedRequest", "recursion limit"),
        (
            [b'{"a": 1, "b": 2, "s": 3}'],
            422,
            "InvalidRequest",
            "s: There is no such field, wanted one of a, b (seen 3)",
        ),
        ([b"1" * 900], 422, "InvalidRequest", "the body: "),
        ([b"[1, 2]"], 422, "InvalidRequest", "the body: "),
        ([b'{"a": 1}'], 422, "InvalidRequest", "b: Field required"),
        ([b'{"a": "x", "b": null}'], 422, "InvalidRequest", "(seen 'x'); b: "),
        ([b" " * (LIMIT + 1)], 413, "BodyTooLarge", "1,001 bytes; wanted at most 1,000"),
        ([b" " * 600, b" " * 600], 413, "BodyTooLarge", "more than 1,000 bytes"),
    ],
)
async def test_a_body_that_will_not_do_is_refused_and_told_why(
    body: list[bytes], status: int, name: str, told: str
) -> None:
    answer = await ask("POST", "/add", body=body)
    assert answer.status == status
    assert answer.error["type"] == name
    assert told in answer.error["message"]
    assert answer.error["mend"]
    assert answer.json["request_id"] == answer.headers[b"x-request-id"].decode()


async def test_a_route_may_take_larger_bodies_than_the_service_s_others() -> None:
    body = b'{"a": 1, "b": 2}' + b" " * LIMIT
    assert (await ask("POST", "/add_much", body=[body])).json == {"sum": 3}
    assert (await ask("POST", "/add_much", body=[body + b" " * LIMIT])).status == 413


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


async def test_a_body_that_states_to_be_too_large_is_refused_before_it_is_read() -> None:
    answer = await ask("POST", "/add", body=[], headers={"content-length": "300000"})
    assert answer.status == 413
    assert "300,000 bytes" in answer.error["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_another_content_type_is_refused(kind: str) -> None:
    answer = await ask("POST", "/add", body=[b'{"a": 1, "b": 2}'], headers={"content-type": kind})
    assert (answer.status, answer.error["type"]) == (415, "NotJson")


@pytest.mark.parametrize("kind", ["", "application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
async def test_a_content_type_of_json_or_none_is_taken(kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    assert (await ask("POST", "/add", body=[b'{"a": 1, "b": 2}'], headers=headers)).status == 200


@pytest.mark.parametrize("body", [[], [b'{"a": 1,', b""]])
async def test_a_body_that_does_not_come_or_does_not_end_is_given_up(
    body: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "BODY_TIMEOUT_S", 0.01)
    front = Front(_inner, lambda: ROUTES, max_body_bytes=LIMIT)
    sent: list[Message] = []
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in body]

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/add", "raw_path": b"/add", "query_string": b"", "headers": []}
    await front(scope, receive, send)
    answer = Answer(sent)
    assert (answer.status, answer.error["type"]) == (408, "BodyTimeout")


async def test_a_caller_that_has_gone_is_sent_nothing() -> None:
    front = Front(_inner, lambda: ROUTES, max_body_bytes=LIMIT)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/add", "raw_path": b"/add", "query_string": b"", "headers": []}
    await front(scope, receive, send)
    assert sent == []


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
