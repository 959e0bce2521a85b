"""exchange: one HTTP request as a handler sees it, and the reply it gives; bodies are bounded while they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import orjson
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from bentos.web.refusals import place_of, wrong_values
from infra.contracts.errors import CallerError

BODY_TIMEOUT_S = 10.0
"""A body that has not arrived by then is given up: a caller cannot hold a request open by sending slowly."""

JSON = b"application/json"
Model = TypeVar("Model", bound=BaseModel)


class BadRequest(CallerError):
    """The request is not HTTP or JSON as the route takes it."""

    def __init__(
        self, message: str, *, status: int, mend: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message, mend=mend)
        self.status = status
        self.headers = headers

    @property
    def type(self) -> str:
        """The error's name in the reply."""
        return _TYPES[self.status]


_TYPES = {
    400: "MalformedRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "BodyTimeout",
    413: "BodyTooLarge",
    415: "NotJson",
    422: "InvalidRequest",
}

_AT_ONCE = "Send the whole body at once."


class CallerGone(Exception):
    """The caller closed the connection: nobody waits for the answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back. Headers are bytes, names in lower case."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_reply(content: object, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """A reply of one JSON document."""
    return Reply(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, JSON, headers)


@dataclass(slots=True)
class Exchange:
    """One request. variables: of the path; numbers: of the query string, checked, the defaults among them."""

    scope: Scope
    receive: Receive
    request_id: str
    max_body_bytes: int
    variables: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    raw: bytes = b""
    """The body, once `json` has read it."""

    def header(self, name: bytes) -> bytes:
        """A header's value; empty where it was not sent."""
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return b""

    async def json(self, model: type[Model]) -> Model:
        """The body as that model. Raises BadRequest: 413 too large, 415 not JSON by its type, 400 not JSON, 422 other values."""
        content_type = self.header(b"content-type").split(b";")[0].strip().lower()
        if content_type and content_type != JSON and not content_type.endswith(b"+json"):
            raise BadRequest(
                f"The body is {content_type[:80].decode('latin-1')}; wanted application/json.",
                status=415,
                mend="Send the header Content-Type: application/json.",
            )
        self.raw = await self.body()
        if b"NaN" in self.raw or b"Infinity" in self.raw:
            _check_literals(self.raw)
        try:
            return model.model_validate_json(self.raw)
        except ValidationError as error:
            raise refusal(error, model) from error

    async def body(self) -> bytes:
        """All of the body. Raises BadRequest 413 as soon as it is known to be too large, 408 where it does not come."""
        stated = self.header(b"content-length")
        if stated.isdigit() and int(stated) > self.max_body_bytes:
            raise self._too_large(f"{int(stated):,} bytes")
        message = await self._next()
        if not message.get("more_body"):
            body: bytes = message.get("body", b"")
            if len(body) > self.max_body_bytes:
                raise self._too_large(f"{len(body):,} bytes")
            return body
        chunks = [message.get("body", b"")]
        size = len(chunks[0])
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while message.get("more_body"):
                    message = await self._next()
                    size += len(message.get("body", b""))
                    if size > self.max_body_bytes:
                        raise self._too_large(f"more than {self.max_body_bytes:,} bytes")
                    chunks.append(message.get("body", b""))
        except TimeoutError as error:
            raise BadRequest(
                f"The body did not end within {BODY_TIMEOUT_S:.0f} s; {size:,} bytes came.", status=408, mend=_AT_ONCE
            ) from error
        return b"".join(chunks)

    async def _next(self) -> Mapping[str, bytes]:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                message = await self.receive()
        except TimeoutError as error:
            raise BadRequest(f"No body came within {BODY_TIMEOUT_S:.0f} s.", status=408, mend=_AT_ONCE) from error
        if message["type"] == "http.disconnect":
            raise CallerGone
        return message

    def _too_large(self, seen: str) -> BadRequest:
        return BadRequest(
            f"The body has {seen}; wanted at most {self.max_body_bytes:,} bytes.",
            status=413,
            mend="Send less in one request.",
        )


Handler = Callable[[Exchange], Awaitable[Reply]]


def refusal(error: ValidationError, model: type[BaseModel]) -> BadRequest:
    """What pydantic found, as one line: 400 where it is not JSON at all, 422 where values are wrong."""
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return _not_json(first["msg"])
    return BadRequest(wrong_values(error, model), status=422)


def _check_literals(body: bytes) -> None:
    """JSON has no NaN and no Infinity, and pydantic takes them. Raises BadRequest where they stand outside of text."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(_literal(body) or str(error)) from error


class _NoNumber(str):
    """NaN, Infinity or -Infinity, as it stood in a body."""


def _literal(body: bytes) -> str:
    """Which one stands first, and where; empty where something else is wrong, too."""
    try:
        ahead: list[tuple[tuple[int | str, ...], object]] = [((), json.loads(body, parse_constant=_NoNumber))]
    except (ValueError, RecursionError):
        return ""
    while ahead:
        place, value = ahead.pop()
        if isinstance(value, _NoNumber):
            return f"{place_of(place)} is {value}, and JSON has neither NaN nor Infinity"
        if isinstance(value, dict):
            ahead.extend(((*place, name), inner) for name, inner in reversed(value.items()))
        elif isinstance(value, list):
            ahead.extend(((*place, at), value[at]) for at in reversed(range(len(value))))
    return ""


def _not_json(because: str) -> BadRequest:
    return BadRequest(f"The body is not JSON: {because}.", status=400, mend="Send one JSON object.")


def path_segment(raw: bytes) -> str:
    """One percent-encoded path segment as text, `%2F` included. Raises BadRequest where it is not UTF-8."""
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("The path is not UTF-8.", status=400, mend="Percent-encode its text as UTF-8.") from error
