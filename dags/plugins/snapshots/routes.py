"""routes: the app behind the Snapshots page: it only reads, and answers nobody who is not logged in and permitted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from dags.forms import CANARY_FRACTION
from dags.plugins.snapshots.access import (
    CANARY,
    CANARY_END,
    PROMOTE,
    ROLLBACK,
    AccessDep,
    ApplicationDep,
    ReadableDep,
    readable,
)
from dags.plugins.snapshots.reading import Overview, overview, report_page
from dags.plugins.snapshots.trials import canary_page
from infra.config.settings import settings
from infra.contracts import errors
from infra.snapshots.connection import address, batch_client
from infra.snapshots.versions import SnapshotStore

_PAGE = Path(__file__).parent / "page"
_SCRIPTS = ("actions", "airflow", "confirm", "elements", "notices", "page", "rows", "theme", "words")
_PARTS = {"page.css": "text/css", **{f"{name}.js": "text/javascript" for name in _SCRIPTS}}
_REDIS_TIMEOUT_S = 3.0
_VERSIONS_AT_MOST = 500

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""A stored report is a document, whatever it holds: it runs nothing, loads nothing, and has no part in Airflow's origin."""

_STATUS = {
    errors.SnapshotNotFound: 404,
    errors.CallerError: 400,
    errors.DependencyUnavailable: 503,
}

app = FastAPI(title="headgate snapshots", docs_url=None, redoc_url=None, openapi_url=None)


@dataclass(frozen=True, slots=True)
class Choice:
    """One application that the user may look at."""

    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the page asks first: what there is to see, which buttons would be refused, and what share of users a canary takes."""

    applications: list[Choice]
    may_promote: bool
    may_roll_back: bool
    may_try: bool
    may_end_trial: bool
    canary_fraction: float


@app.get("/", dependencies=[Depends(readable)])
def page() -> Response:
    """The page; it holds no data."""
    return _file("index.html", "text/html")


@app.get("/applications")
def applications(found: ReadableDep, access: AccessDep) -> Welcome:
    """What the user may see and do."""
    choices = [Choice(spec.name, spec.title) for spec in found]
    return Welcome(
        choices,
        may_promote=access.may_trigger(PROMOTE),
        may_roll_back=access.may_trigger(ROLLBACK),
        may_try=access.may_trigger(CANARY),
        may_end_trial=access.may_trigger(CANARY_END),
        canary_fraction=settings().canary_fraction or CANARY_FRACTION,
    )


@app.get("/applications/{application}")
def versions(spec: ApplicationDep, newest: Annotated[int, Query(ge=1, le=_VERSIONS_AT_MOST)] = 25) -> Overview:
    """An application's versions and flips."""
    url = settings().redis_url.get_secret_value()
    store = SnapshotStore(settings().store, spec.name)
    with batch_client(url, timeout_s=_REDIS_TIMEOUT_S) as client:
        return overview(spec, store, client, now=datetime.now(UTC), newest=newest, address=address(url))


@app.get("/applications/{application}/versions/{version}/report")
def report(spec: ApplicationDep, version: str, download: bool = False) -> Response:
    """The newest validation report of a version, as it is stored: one HTML page that needs no other."""
    return _stored(*report_page(SnapshotStore(settings().store, spec.name).get(version)), download=download)


@app.get("/applications/{application}/versions/{version}/canary")
def canary(spec: ApplicationDep, version: str, download: bool = False) -> Response:
    """How the last canary or shadow of a version ended, as it is stored: one HTML page as well."""
    return _stored(*canary_page(SnapshotStore(settings().store, spec.name).get(version)), download=download)


@app.get("/{name}", dependencies=[Depends(readable)])
def part(name: str) -> Response:
    """The page's style and scripts."""
    if name not in _PARTS:
        raise HTTPException(404, f"There is no {name!r} here.")
    return _file(name, _PARTS[name])


@app.exception_handler(errors.HeadgateError)
def tell(request: Request, error: errors.HeadgateError) -> JSONResponse:
    """The error's own words, in the form in which Airflow tells of its own."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"detail": str(error)}, status)


def _file(name: str, media_type: str) -> Response:
    return Response(
        (_PAGE / name).read_bytes(), media_type=f"{media_type}; charset=utf-8", headers=_headers(_PAGE_POLICY)
    )


def _stored(name: str, content: bytes, *, download: bool) -> Response:
    headers = _headers(_REPORT_POLICY)
    if download:
        headers["content-disposition"] = f'attachment; filename="{name}"'
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


def _headers(policy: str) -> dict[str, str]:
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
