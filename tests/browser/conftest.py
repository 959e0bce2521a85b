"""A headless Chromium that tells on the page: its console errors, its failed requests and every host it spoke to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from infra.config.settings import settings
from infra.contracts.errors import MissingTool
from infra.local.tools import find_chromium

_PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as it is on PATH; skips where there is none and none is required.

    A module's and not the session's: while playwright runs, this thread has a running event loop and no asyncio test can start.
    """
    try:
        path = find_chromium()
    except MissingTool as error:
        if settings().require_all:
            raise
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        expect.set_options(timeout=_PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page and what it did."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        return self.page

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text().strip()


def watch(browser: Browser, url: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> Watched:
    """A page in a context of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", service_workers="block"
    )
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    watched = Watched(page, url)
    page.on("console", lambda said: watched.problems.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: watched.problems.append(str(error)))
    page.on("request", lambda request: watched.hosts.add(urlsplit(request.url).netloc))
    return watched
