"""pages: the one page that shows the feed at work, served from this folder without any other host."""

from __future__ import annotations

from pathlib import Path

from bentos.web.exchange import Exchange, Handler, Reply
from bentos.web.front import Route

_FOLDER = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/page/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page/page.js": ("page.js", b"text/javascript; charset=utf-8"),
}
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


def page_routes() -> list[Route]:
    """The page and its two files, read once."""
    return [
        Route("GET", path, _file((_FOLDER / name).read_bytes(), content_type), "The page", listed=False)
        for path, (name, content_type) in _FILES.items()
    ]


def _file(content: bytes, content_type: bytes) -> Handler:
    async def reply(exchange: Exchange) -> Reply:
        return Reply(content, content_type=content_type, headers=_HEADERS)

    return reply
