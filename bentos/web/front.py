"""front: the outermost ASGI application of a service: its routes, the one form of errors, and BentoML's own routes behind it.

It stands before BentoML's middlewares: a request on the hot path costs no access log, no tracing and no metric labelled by
path (which anybody could make grow without end).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from bentos.web.counting import ELSEWHERE, count_reply
from bentos.web.exchange import BadRequest, CallerGone, Exchange, Handler, Reply, json_reply, path_segment
from bentos.web.refusals import Number, numbers_of
from bentos.web.request_ids import new_request_id
from infra.contracts.errors import (
    CallerError,
    ContractViolation,
    DeadlineExceeded,
    DependencyUnavailable,
    HeadgateError,
    SnapshotError,
    UnknownApplication,
)

_log = logging.getLogger("headgate.web")

_STATUS: tuple[tuple[type[HeadgateError], int], ...] = (
    (UnknownApplication, 404),
    (CallerError, 422),
    (DependencyUnavailable, 503),
    (SnapshotError, 503),
    (DeadlineExceeded, 504),
)

_MEND = "See /docs for what this route takes."
"""For a caller whose error says no more than what was wanted."""

BENTOML_PATHS = ("/metrics", "/livez", "/healthz", "/schema.json")
BENTOML_FOLDERS = ("/static_content/",)
"""What is answered by BentoML itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route, and all that its OpenAPI entry says. Any segment of `path` may be a `{variable}`; query: its whole numbers.

    statuses: those that come with what it gives. max_body_bytes: where it is not the service's.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    description: str = ""
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    query: dict[str, Number] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    statuses: tuple[int, ...] = (200,)
    max_body_bytes: int | None = None
    listed: bool = True


@dataclass(frozen=True, slots=True)
class _Template:
    """A path with variables, segment by segment: bytes as they stand in a request, or a variable's name."""

    segments: tuple[bytes | str, ...]
    by_method: dict[str, Route]

    @classmethod
    def of(cls, path: str) -> _Template:
        """Nothing is served there yet."""
        found = (re.fullmatch(r"\{(\w+)\}", segment) or segment.encode() for segment in path.split("/"))
        return cls(tuple(part if isinstance(part, bytes) else part[1] for part in found), {})

    def match(self, segments: Sequence[bytes]) -> dict[str, bytes] | None:
        """The variables' values, still percent-encoded; None where it is another path."""
        if len(segments) != len(self.segments):
            return None
        variables: dict[str, bytes] = {}
        for wanted, seen in zip(self.segments, segments, strict=True):
            if isinstance(wanted, bytes):
                if wanted != seen:
                    return None
            elif seen:
                variables[wanted] = seen
            else:
                return None
        return variables


class Front:
    """ASGI. Every reply of its own carries x-request-id; every error is `{"error": {"type", "message", "mend"}, "request_id"}`.

    It counts its own replies; BentoML counts what it answers itself.
    """

    def __init__(self, inner: ASGIApp, routes: Callable[[], Sequence[Route]], *, max_body_bytes: int) -> None:
        """inner: BentoML's application. routes: asked once, after BentoML has made the service."""
        self._inner = inner
        self._routes = routes
        self._max_body_bytes = max_body_bytes
        self._exact: dict[str, dict[str, Route]] | None = None
        self._templates: dict[str, _Template] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path: str = scope["path"]
        if path in BENTOML_PATHS or path.startswith(BENTOML_FOLDERS):
            await self._inner(scope, receive, send)
            return
        request_id = new_request_id()
        try:
            reply = await self._answer(scope, receive, request_id)
        except CallerGone:
            return
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", str(len(reply.body)).encode()),
            (b"x-request-id", request_id.encode()),
            *reply.headers,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})

    async def _answer(self, scope: Scope, receive: Receive, request_id: str) -> Reply:
        where = ELSEWHERE
        try:
            where, by_method, raw_variables = self._find(scope)
            route = _of_method(by_method, scope["method"])
            variables = {name: path_segment(raw) for name, raw in raw_variables.items()}
            numbers = numbers_of(route.query, scope["query_string"]) if route.query else {}
            limit = route.max_body_bytes or self._max_body_bytes
            reply = await route.handler(Exchange(scope, receive, request_id, limit, variables, numbers))
        except CallerGone:
            raise
        except HeadgateError as error:
            reply = error_reply(error, request_id=request_id)
        except Exception:  # noqa: BLE001 - whatever it was, the caller gets JSON and the log the trace
            _log.exception("request %s failed", request_id)
            reply = error_reply(
                ContractViolation("The service failed.", mend="Its log tells more under this request_id."),
                request_id=request_id,
            )
        count_reply(where, reply.status)
        return reply

    def _find(self, scope: Scope) -> tuple[str, dict[str, Route], dict[str, bytes]]:
        """The path as its routes have it, these by method, and its variables. Raises BadRequest 404."""
        if self._exact is None:
            self._exact = self._index()
        path: str = scope["path"]
        by_method = self._exact.get(path)
        if by_method is not None:
            return path, by_method, {}
        segments = (scope.get("raw_path") or path.encode()).split(b"/")
        for where, template in self._templates.items():
            found = template.match(segments)
            if found is not None:
                return where, template.by_method, found
        raise BadRequest(f"There is nothing at {path[:200]!r}.", status=404, mend="See /docs.")

    def _index(self) -> dict[str, dict[str, Route]]:
        exact: dict[str, dict[str, Route]] = {}
        for route in self._routes():
            if "{" in route.path:
                template = self._templates.setdefault(route.path, _Template.of(route.path))
                template.by_method[route.method] = route
            else:
                exact.setdefault(route.path, {})[route.method] = route
        return exact


def _of_method(by_method: Mapping[str, Route], method: str) -> Route:
    """HEAD is as GET. Raises BadRequest 405."""
    route = by_method.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = ", ".join(sorted(by_method))
        raise BadRequest(
            f"{method[:20]} is not allowed here; wanted {allowed}.",
            status=405,
            mend="See /docs.",
            headers=((b"allow", allowed.encode()),),
        )
    return route


def status_of(error: HeadgateError) -> int:
    """The HTTP status that tells who must act."""
    if isinstance(error, BadRequest):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_reply(error: HeadgateError, *, request_id: str) -> Reply:
    """The one form of errors."""
    status = status_of(error)
    headers = error.headers if isinstance(error, BadRequest) else ()
    content = error_content(error, request_id=request_id)
    return json_reply(content, status=status, headers=((b"retry-after", b"1"),) if status == 503 else headers)


def error_content(error: HeadgateError, *, request_id: str) -> dict[str, object]:
    """An ErrorReply as plain values; what is our own fault goes to the log as well."""
    if status_of(error) == 500:
        _log.error("request %s: %s: %s", request_id, type(error).__name__, error)
    name = error.type if isinstance(error, BadRequest) else type(error).__name__
    message = str(error).removesuffix(error.mend).strip()
    mend = error.mend or (_MEND if isinstance(error, CallerError) else "")
    return {"error": {"type": name, "message": message, "mend": mend}, "request_id": request_id}
