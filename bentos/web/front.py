"""front: the outermost ASGI application of a service: its routes, the one form of errors, and BentoML's own routes behind it.

It stands before BentoML's middlewares: a request on the hot path costs no access log, no tracing and no metric labelled by
path (which anybody could make grow without end).
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from bentos.web.exchange import BadRequest, CallerGone, Exchange, Handler, Reply, json_reply, path_segment
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

BENTOML_PATHS = ("/metrics", "/livez", "/healthz", "/schema.json")
BENTOML_FOLDERS = ("/static_content/",)
"""What is answered by BentoML itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route, and all that its OpenAPI entry says. `path` may hold one `{variable}` as its last segment."""

    method: str
    path: str
    handler: Handler
    summary: str
    description: str = ""
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    query: dict[str, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    listed: bool = True


class Front:
    """ASGI. Every reply of its own carries x-request-id; every error is `{"error": {"type", "message", "mend"}, "request_id"}`."""

    def __init__(self, inner: ASGIApp, routes: Callable[[], Sequence[Route]], *, max_body_bytes: int) -> None:
        """inner: BentoML's application. routes: asked once, after BentoML has made the service."""
        self._inner = inner
        self._routes = routes
        self._max_body_bytes = max_body_bytes
        self._exact: dict[str, dict[str, Route]] | None = None
        self._prefixed: list[tuple[str, str, dict[str, Route]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path: str = scope["path"]
        if path in BENTOML_PATHS or path.startswith(BENTOML_FOLDERS):
            await self._inner(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
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
        try:
            route, variables = self._find(scope)
            return await route.handler(Exchange(scope, receive, request_id, self._max_body_bytes, variables))
        except CallerGone:
            raise
        except HeadgateError as error:
            return error_reply(error, request_id=request_id)
        except Exception:  # noqa: BLE001 - whatever it was, the caller gets JSON and the log the trace
            _log.exception("request %s failed", request_id)
            return error_reply(
                ContractViolation("The service failed.", mend="Its log tells more under this request_id."),
                request_id=request_id,
            )

    def _find(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        if self._exact is None:
            self._exact = self._index()
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        by_method, variables = self._exact.get(scope["path"]), {}
        if by_method is None:
            raw = scope.get("raw_path") or scope["path"].encode()
            for prefix, name, candidates in self._prefixed:
                rest = raw[len(prefix) :]
                if raw.startswith(prefix.encode()) and rest and b"/" not in rest:
                    by_method, variables = candidates, {name: path_segment(rest)}
        if by_method is None:
            raise BadRequest(f"There is nothing at {scope['path'][:200]!r}.", status=404, mend="See /docs.")
        route = by_method.get(method)
        if route is None:
            allowed = ", ".join(sorted(by_method))
            raise BadRequest(
                f"{method[:20]} is not allowed here; wanted {allowed}.",
                status=405,
                mend="See /docs.",
                headers=((b"allow", allowed.encode()),),
            )
        return route, variables

    def _index(self) -> dict[str, dict[str, Route]]:
        exact: dict[str, dict[str, Route]] = {}
        prefixed: dict[tuple[str, str], dict[str, Route]] = {}
        for route in self._routes():
            variable = re.fullmatch(r"(.*/)\{(\w+)\}", route.path)
            if variable is None:
                exact.setdefault(route.path, {})[route.method] = route
            else:
                prefixed.setdefault((variable[1], variable[2]), {})[route.method] = route
        self._prefixed = [(prefix, name, routes) for (prefix, name), routes in prefixed.items()]
        return exact


def status_of(error: HeadgateError) -> int:
    """The HTTP status that tells who must act."""
    if isinstance(error, BadRequest):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_reply(error: HeadgateError, *, request_id: str) -> Reply:
    """The one form of errors."""
    status = status_of(error)
    message = str(error).removesuffix(error.mend).strip()
    if status == 500:
        _log.error("request %s: %s: %s", request_id, type(error).__name__, error)
    name = error.type if isinstance(error, BadRequest) else type(error).__name__
    content = {
        "error": {"type": name, "message": message, "mend": error.mend},
        "request_id": request_id,
    }
    headers = error.headers if isinstance(error, BadRequest) else ()
    return json_reply(content, status=status, headers=((b"retry-after", b"1"),) if status == 503 else headers)
