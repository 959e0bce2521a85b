"""asking: a front with a few routes of its own, asked as a server would ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.types import Message, Receive, Scope, Send

from bentos.web.exchange import Exchange, Reply, json_reply
from bentos.web.front import Front, Route
from bentos.web.refusals import Number

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


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
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
    front = Front(inner, lambda: ROUTES, max_body_bytes=LIMIT)
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
