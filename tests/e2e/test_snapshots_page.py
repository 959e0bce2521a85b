"""The Snapshots page in a real browser inside a real Airflow: roll back, promote, read the report; who may not, is refused."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect

from tests.browser.conftest import Watched, watch
from tests.e2e.conftest import PROMOTE, ROLLBACK, VIEWER, Build, Platform, log_in
from tests.fixtures.proof import sized

CANARY = "snapshot_canary"

PATIENCE_MS = 60_000
"""For what Airflow does meanwhile, on a machine that is busy with other things."""

pytestmark = pytest.mark.timeout(sized(1200, full=3600))


@dataclass
class Visit:
    """A logged-in user's browser, and how often it was clicked."""

    watched: Watched
    clicks: int = 0

    @property
    def page(self) -> Page:
        return self.watched.page

    @property
    def frame(self) -> FrameLocator:
        return self.page.frame_locator("iframe[title=Snapshots]")

    def click(self, target: Locator) -> None:
        target.click()
        self.clicks += 1

    def open(self) -> None:
        """From anywhere in Airflow."""
        self.click(self.page.get_by_role("link", name="Snapshots"))
        expect(self.frame.locator("#versions tbody tr").first).to_be_visible(timeout=PATIENCE_MS)

    def row(self, version: str) -> Locator:
        return self.frame.locator(f'#versions tr[data-version="{version}"]')

    def notice(self, kind: str) -> Locator:
        return self.frame.locator(f"#notice-action .{kind}")

    def confirm(self, version: str, *, button: str, reason: str) -> None:
        self.click(self.row(version).get_by_role("button", name=button))
        go = self.frame.locator("#confirm-go")
        expect(go).to_be_disabled()
        self.frame.locator("#reason").fill(reason)
        self.click(go)


def served(platform: Platform, *, users: int = 40) -> set[str]:
    """The snapshots that the service names to some of the users."""
    url = f"{platform.service_url}/recommend"
    bodies = [{"user_id": f"u{number:07d}", "n": 10} for number in range(users)]
    return {str(httpx.post(url, json=body, timeout=10).raise_for_status().json()["snapshot"]) for body in bodies}


@pytest.fixture(scope="module", autouse=True)
def second_is_live(platform: Platform, two_builds: tuple[Build, Build]) -> None:
    assert platform.live()[0] == two_builds[1].version


@pytest.fixture
def visit(browser: Browser, platform: Platform, two_builds: tuple[Build, Build]) -> Iterator[Visit]:
    """The admin at Airflow's home. Afterwards: no error of the page's own, and no other host was spoken to."""
    visit = Visit(watch(browser, platform.airflow.url))
    thrown: list[str] = []
    visit.page.on("pageerror", lambda error: thrown.append(str(error)))
    log_in(visit.page, platform)
    yield visit
    assert thrown == []
    assert visit.watched.hosts - {""} == {platform.airflow.url.removeprefix("http://")}, "data URLs have no host"
    visit.page.context.close()


def test_from_airflows_home_to_a_finished_rollback_is_three_clicks_and_all_records_name_who_and_why(
    visit: Visit, platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    first, second = (build.version for build in two_builds)
    reason = "too many duplicates <img src=x onerror=\"document.title='owned'\">"
    visit.open()
    expect(visit.row(second).locator(".state")).to_have_text("Live")
    visit.confirm(first, button="Roll back to this", reason=reason)
    expect(visit.notice("success")).to_contain_text(f"Rolled back to {first}.", timeout=PATIENCE_MS)
    assert visit.clicks == 3

    expect(visit.row(first).locator(".state")).to_have_text("Live")
    expect(visit.row(first)).to_contain_class("changed")
    expect(visit.row(first).locator(".went-live")).to_contain_text("by airflow:admin")
    expect(visit.row(second).locator(".state")).to_have_text("Rolled back")
    expect(visit.frame.locator("#live-version")).to_have_text(first)
    newest = visit.frame.locator("#flips li").first
    expect(newest.locator(".move")).to_have_text(f"{second} → {first}")
    expect(newest.locator(".why")).to_have_text(reason)
    expect(visit.frame.locator("img")).to_have_count(0)
    assert visit.page.title() != "owned"

    assert platform.live()[0] == first
    platform.seconds_until_served(f"predictions_{first}")
    triggers = platform.events(ROLLBACK, "trigger_dag_run")
    assert triggers[0]["owner"] == "admin" and "too many duplicates" in str(triggers[0]["extra"])


def test_what_was_rolled_back_is_promoted_again_on_purpose(
    visit: Visit, platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    second = two_builds[1].version
    visit.open()
    visit.confirm(second, button="Promote", reason="it was the client after all")
    expect(visit.notice("success")).to_contain_text(f"Promoted {second}.", timeout=PATIENCE_MS)
    expect(visit.row(second).locator(".state")).to_have_text("Live")
    expect(visit.row(second).locator(".went-live")).to_contain_text("it was the client after all")
    assert platform.live()[0] == second
    assert platform.events(PROMOTE, "trigger_dag_run")[0]["owner"] == "admin"
    visit.frame.get_by_role("link", name="See the run").click()
    visit.page.wait_for_url(re.compile(f"/dags/{PROMOTE}/runs/"), timeout=PATIENCE_MS)
    expect(visit.page.get_by_text("it was the client after all").first).to_be_visible(timeout=PATIENCE_MS)


def test_a_move_that_fails_says_why_and_changes_no_row(
    visit: Visit, platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    first, second = (build.version for build in two_builds)
    visit.open()
    visit.click(visit.row(first).get_by_role("button", name="Roll back to this"))
    sealed = platform.home / "store/ranking/snapshots" / first / "manifest.json"
    away = sealed.rename(sealed.with_name("away.json"))
    try:
        visit.frame.locator("#reason").fill("while its manifest is away")
        visit.frame.locator("#confirm-go").click()
        failure = visit.notice("error")
        expect(failure).to_contain_text(f"Rolling back to {first} failed.", timeout=PATIENCE_MS)
        expect(failure).to_contain_text("error: SnapshotNotFound:")
    finally:
        away.rename(sealed)
    expect(visit.row(second).locator(".state")).to_have_text("Live")
    assert platform.live()[0] == second


def test_a_reason_is_required_and_closing_does_nothing(
    visit: Visit, platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    runs = len(platform.events(ROLLBACK, "trigger_dag_run"))
    visit.open()
    visit.click(visit.row(two_builds[0].version).get_by_role("button", name="Roll back to this"))
    go, reason = visit.frame.locator("#confirm-go"), visit.frame.locator("#reason")
    for text in ("", "bad", "    bad    "):
        reason.fill(text)
        expect(go).to_be_disabled()
    reason.fill("too many duplicates")
    expect(go).to_be_enabled()
    visit.page.keyboard.press("Escape")
    expect(visit.frame.locator("#confirm")).to_be_hidden()
    assert len(platform.events(ROLLBACK, "trigger_dag_run")) == runs


def test_the_validation_report_is_one_click_away_and_can_be_kept(visit: Visit, two_builds: tuple[Build, Build]) -> None:
    version = two_builds[1].version
    visit.open()
    visit.click(visit.row(version).get_by_role("button", name="Validation report"))
    report = visit.frame.frame_locator("#report-page")
    expect(report.locator("h1")).to_have_text(f"ranking/{version}")
    with visit.page.expect_download() as kept:
        visit.frame.locator("#report-download").click()
    assert kept.value.suggested_filename == f"ranking-{version}-validation.html"
    assert f"ranking/{version}" in kept.value.path().read_text()
    visit.frame.locator("#report-close").click()
    expect(visit.frame.locator("#report")).to_be_hidden()


def test_a_snapshot_is_tried_on_half_of_the_users_until_somebody_ends_it_and_the_page_tells_all_of_it(
    visit: Visit, platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    first, second = (build.version for build in two_builds)
    visit.open()
    visit.click(visit.row(first).get_by_role("button", name=f"Canary: {first}"))
    visit.frame.locator("#trial-percent").fill("50")
    visit.frame.locator("#reason").fill("was it the client?")
    visit.click(visit.frame.locator("#confirm-go"))
    expect(visit.notice("success")).to_contain_text(f"{first} is tried.", timeout=PATIENCE_MS)
    assert visit.clicks == 3
    (run_id,) = platform.airflow.running(CANARY)

    expect(visit.row(first).locator(".state")).to_have_text("Canary")
    expect(visit.row(first).locator(".trial")).to_contain_text("50 % canary")
    expect(visit.frame.locator("#notice-trial")).to_contain_text(f"{first} is shown to 50 % of the users")
    expect(visit.frame.locator("#flips li").first.locator(".kind")).to_have_text("Canary, 50 %")
    both = {f"predictions_{version}" for version in (first, second)}
    began = time.monotonic()
    while served(platform) != both:
        assert time.monotonic() - began < 60, "the canary is not served"
    assert platform.live()[0] == second

    visit.confirm(first, button=f"End canary: {first}", reason="it was not the client")
    expect(visit.notice("success")).to_contain_text(f"{first} is tried no longer.", timeout=PATIENCE_MS)
    expect(visit.frame.locator("#notice-trial")).to_be_empty()
    expect(visit.row(first).locator(".state")).to_have_text("Validated")
    expect(visit.frame.locator("#flips li").first.locator(".kind")).to_have_text("Canary ended")
    visit.click(visit.row(first).get_by_role("button", name="Report of the canary"))
    report = visit.frame.frame_locator("#report-page")
    expect(report.locator(".headline")).to_have_text("Ended by airflow:admin: it was not the client")
    visit.frame.locator("#report-close").click()

    assert platform.ended(CANARY, run_id) == "success"
    told = platform.airflow.result(CANARY, run_id, "decide")
    assert (told["version"], told["verdict"]) == (first, "ended")
    assert served(platform) == {f"predictions_{second}"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_has_airflows_own_colours_and_font_and_fits_a_narrow_window(
    browser: Browser, platform: Platform, dark: bool
) -> None:
    watched = watch(browser, platform.airflow.url, width=700, dark=dark)
    visit = Visit(watched)
    log_in(visit.page, platform)
    visit.open()
    own, airflows = visit.frame.locator("body"), visit.page.locator("body")
    for wanted, token in (("--fg", "fg"), ("--bg", "bg"), ("--border", "border"), ("--brand", "brand-solid")):
        assert own.evaluate(PAINTED, f"var({wanted})") == airflows.evaluate(PAINTED, f"var(--chakra-colors-{token})")
    assert own.evaluate(FONT) == airflows.evaluate(FONT)
    assert own.evaluate("body => body.scrollWidth <= innerWidth")
    visit.page.context.close()


PAINTED = """(body, colour) => {
    const spot = body.ownerDocument.createElement('i');
    spot.style.color = colour;
    body.append(spot);
    const painted = getComputedStyle(spot).color;
    spot.remove();
    return painted;
}"""
FONT = "body => getComputedStyle(body).fontFamily.replace(/\\s/g, '').slice(0, 40)"


def test_who_may_look_and_not_act_sees_the_table_and_is_refused_by_airflow(
    browser: Browser, platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    visit = Visit(watch(browser, platform.airflow.url))
    log_in(visit.page, platform, user=VIEWER)
    visit.open()
    button = visit.row(two_builds[0].version).get_by_role("button", name="Roll back to this")
    expect(button).to_be_disabled()
    expect(button).to_have_attribute("title", f"You may not trigger {ROLLBACK}.")
    conf = {"application": "ranking", "version": two_builds[0].version, "reason": "as a viewer"}
    url = f"{platform.airflow.url}/api/v2/dags/{ROLLBACK}/dagRuns"
    refused = visit.page.request.post(url, data={"logical_date": None, "conf": conf})
    assert refused.status == 403
    visit.page.context.close()


def test_without_a_login_nothing_is_shown(browser: Browser, platform: Platform) -> None:
    for path in ("/snapshots/", "/snapshots/page.js", "/snapshots/applications", "/snapshots/applications/ranking"):
        assert httpx.get(platform.airflow.url + path).status_code == 401
    watched = watch(browser, platform.airflow.url)
    watched.open("/plugin/snapshots")
    watched.page.wait_for_url(re.compile("/auth/login"))
    expect(watched.page.locator("input[name=username]")).to_be_visible()
    watched.page.context.close()
