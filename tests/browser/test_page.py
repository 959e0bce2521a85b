"""The service's page in a real browser: what a person sees of a list, and what they can do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Watched, watch
from tests.fixtures.redis_server import RedisProcess, new_redis
from tests.fixtures.service import Served, Stage, serving


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def empty(browser: Browser, server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service before its first snapshot."""
    folder = tmp_path_factory.mktemp("page")
    with serving(Stage(folder / "store", server.url), folder=folder) as served:
        yield served


@pytest.fixture(scope="module")
def waiting(browser: Browser, empty: Served) -> Watched:
    """A page that was opened before there was a snapshot."""
    watched = watch(browser, empty.url)
    watched.open()
    expect(watched.page.locator("#state")).to_have_text("no snapshot yet")
    return watched


@pytest.fixture(scope="module")
def served(waiting: Watched, empty: Served) -> Served:
    """The same service with a snapshot live."""
    empty.stage.flip_live()
    empty.wait_ready()
    return empty


@pytest.fixture
def watched(browser: Browser, served: Served) -> Iterator[Watched]:
    """A fresh page that shows its first list. Afterwards: nothing was complained of, and no other host was spoken to."""
    watched = watch(browser, served.url)
    watched.open()
    expect(watched.page.locator("#list > li")).to_have_count(20)
    yield watched
    assert watched.problems == []
    assert watched.hosts == {served.url.removeprefix("http://")}
    watched.page.context.close()


def test_without_a_snapshot_the_page_says_what_is_missing_and_fills_by_itself(
    waiting: Watched, empty: Served, request: pytest.FixtureRequest
) -> None:
    notice = waiting.page.locator("#notice")
    expect(notice).to_be_visible()
    expect(notice).to_contain_text("no version is live yet. Run: make snapshot")
    expect(waiting.page.locator("#list-empty")).to_contain_text("comes by itself")
    request.getfixturevalue("served")
    expect(waiting.page.locator("#list > li")).to_have_count(20)
    expect(notice).to_be_hidden()
    expect(waiting.page.locator("#state")).to_have_text("ready")
    waiting.page.context.close()


def test_a_list_shows_titles_sources_reasons_scores_and_the_snapshot(watched: Watched) -> None:
    until_whole(watched.page)
    first = watched.page.locator("#list > li").first
    expect(first.locator(".title")).to_have_text(re.compile(r"^The \w+ of \d+$"))
    expect(first.locator(".source")).to_have_text("retrieval")
    expect(first.locator(".reason")).to_have_text(re.compile(r"^no\. \d+ of 100 retrieved"))
    expect(first.locator(".score")).to_have_text(re.compile(r"^-?\d+\.\d{3}$"))
    assert watched.text("#snapshot").startswith("predictions_v")
    assert watched.text("#quality") == "0.2000"
    assert "decided by ranker" in watched.text("#decided")


def test_the_history_shows_titles_newest_first(watched: Watched) -> None:
    expect(watched.page.locator("#history > li")).to_have_count(20)
    assert watched.text("#history-count") == "newest 20"


def test_every_stage_shows_its_milliseconds(watched: Watched) -> None:
    until_whole(watched.page)
    rows = watched.page.locator("#stages > li").all_inner_texts()
    assert [row.split("\n")[0] for row in rows] == [
        "retrieval", "consumed", "matches", "features", "ranker", "backfill", "diversity", "top", "telemetry",
    ]  # fmt: skip
    assert all(re.search(r"\d+\.\d\d ms$", row) for row in rows)
    assert re.fullmatch(r"\d+\.\d\d ms in all", watched.text("#total"))


def test_ask_again_asks_again(watched: Watched) -> None:
    before = watched.text("#request-id")
    watched.page.get_by_role("button", name="Ask again").click()
    expect(watched.page.locator("#request-id")).not_to_have_text(before)
    expect(watched.page.locator("#list > li")).to_have_count(20)


def test_another_user_is_picked_from_the_list(watched: Watched) -> None:
    before = watched.page.locator("#list .title").all_inner_texts()
    watched.page.locator("#sample").select_option(index=5)
    expect(watched.page.locator("#list .title").first).not_to_have_text(before[0])
    assert watched.page.locator("#user").input_value() == watched.page.locator("#sample").input_value()


def test_an_unknown_user_is_shown_what_is_popular_and_told_why(watched: Watched) -> None:
    watched.page.get_by_label("or any user id").fill("a stranger: {}")
    watched.page.get_by_role("spinbutton", name="Items").fill("7")
    watched.page.keyboard.press("Enter")
    expect(watched.page.locator("#list > li")).to_have_count(7)
    assert set(watched.page.locator("#list .source").all_inner_texts()) == {"popular"}
    expect(watched.page.locator("#history-empty")).to_contain_text("No snapshot knows this user")
    expect(watched.page.locator("#list .reason").first).to_have_text("no. 1 of what many took lately")


def test_an_item_that_is_taken_moves_into_the_history_and_leaves_the_list(watched: Watched) -> None:
    watched.page.locator("#sample").select_option(index=8)
    expect(watched.page.locator("#history > li .new")).to_have_count(0)
    title = watched.text("#list > li:first-child .title")
    watched.page.get_by_role("button", name=f"Take {title}", exact=True).click()
    expect(watched.page.locator("#said")).to_contain_text(f"Taken: {title}")
    expect(watched.page.locator("#history > li").first).to_contain_text(title)
    expect(watched.page.locator("#history > li .new")).to_have_text("just now")
    assert title not in watched.page.locator("#list .title").all_inner_texts()


def test_a_click_moves_the_features_of_the_stream_and_the_page_marks_them(watched: Watched) -> None:
    page = watched.page
    page.get_by_label("or any user id").fill("newcomer")
    page.keyboard.press("Enter")
    clicks = page.locator("#nearline > div").filter(has_text="clicks last hour")
    expect(clicks.locator("dd")).to_have_text("0")
    expect(page.locator("#decided")).to_contain_text("decided by popular")
    page.locator("#list button").nth(1).click()
    expect(clicks.locator("dd")).to_have_text("0 → 1 moved")
    expect(page.locator("#nearline > div.moved")).to_have_count(3)
    expect(page.locator("#decided")).to_contain_text("decided by fresh")
    assert "fresh" in page.locator("#list .source").all_inner_texts()
    expect(page.locator("#list .moved-up").first).to_be_visible()


def test_the_keyboard_alone_reaches_user_count_and_button(watched: Watched) -> None:
    page = watched.page
    page.locator("body").press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the list"
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["sample", "user", "n", "again"]
    before = watched.text("#request-id")
    page.keyboard.press("Enter")
    expect(page.locator("#request-id")).not_to_have_text(before)


def test_a_flip_is_shown_without_a_reload(watched: Watched, served: Served) -> None:
    before = watched.text("#snapshot")
    served.stage.flip_live()
    expect(watched.page.locator("#snapshot")).not_to_have_text(before)
    expect(watched.page.locator("#said")).to_contain_text("is live now")
    expect(watched.page.locator("#decided")).to_contain_text(watched.text("#snapshot"))


@pytest.mark.parametrize("width", [360, 820, 1100])
def test_nothing_is_cut_off_on_a_narrow_screen(width: int, browser: Browser, served: Served) -> None:
    narrow = watch(browser, served.url, width=width, height=800)
    page = narrow.open()
    expect(page.locator("#list > li")).to_have_count(20)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert narrow.problems == []
    page.context.close()


def test_text_can_be_read_in_light_and_in_dark(browser: Browser, served: Served) -> None:
    grounds = []
    for dark in (False, True):
        watched = watch(browser, served.url, dark=dark)
        page = watched.open()
        expect(page.locator("#list > li")).to_have_count(20)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.context.close()
    assert grounds[0] != grounds[1]


def test_titles_are_text_and_never_markup(browser: Browser, served: Served) -> None:
    watched = watch(browser, served.url)
    page = watched.open("/?user=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    expect(page.locator("#list > li")).to_have_count(20)
    assert page.locator("#user").input_value() == "<img src=x onerror=alert(1)>"
    assert page.locator("main img").count() == 0
    assert watched.problems == []
    page.context.close()


def test_the_swagger_page_renders_and_try_it_out_gets_a_list(browser: Browser, served: Served) -> None:
    watched = watch(browser, served.url)
    page = watched.open("/docs")
    block = page.locator("#operations-service-post_recommend")
    block.click()
    block.get_by_role("button", name="Try it out").click()
    block.locator("textarea").fill('{"user_id": "u1", "n": 2}')
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table")
    expect(answer).to_contain_text("predictions_v")
    expect(answer.locator("tbody .response-col_status").first).to_contain_text("200")
    assert watched.hosts == {served.url.removeprefix("http://")}
    assert watched.problems == []
    page.context.close()


def test_a_service_that_is_gone_is_told_and_not_shown_as_a_broken_page(browser: Browser, served: Served) -> None:
    watched = watch(browser, served.url)
    page = watched.open()
    expect(page.locator("#list > li")).to_have_count(20)
    page.route("**/status", lambda route: route.abort())
    page.route("**/recommend", lambda route: route.abort())
    expect(page.locator("#state")).to_have_text("not reachable")
    expect(page.locator("#notice")).to_contain_text("The service does not answer. Run: make status")
    page.unroute_all()
    expect(page.locator("#state")).to_have_text("ready")
    expect(page.locator("#notice")).to_be_hidden()
    page.context.close()


def until_whole(page: Page) -> None:
    """A list of which a stage overran its budget because the machine is busy is asked for again."""
    for _ in range(50):
        if page.locator("#decided .degraded").count() == 0:
            return
        before = page.locator("#request-id").inner_text()
        page.get_by_role("button", name="Ask again").click()
        expect(page.locator("#request-id")).not_to_have_text(before)
    raise AssertionError(page.locator("#skipped").inner_text())


def test_why_opens_what_brought_an_item_and_what_its_features_gave(watched: Watched) -> None:
    until_whole(watched.page)
    first = watched.page.locator("#list > li").first
    why = first.get_by_role("button", name=re.compile("^Why"))
    why.click()
    panel = first.locator(".why")
    expect(panel.locator("dd").first).to_contain_text("retrieval: no.")
    expect(panel.locator("dd").nth(1)).to_have_text(re.compile(r"^\d+ after sources → .*\d+ after ranker"))
    expect(panel.locator("dd").nth(2)).to_contain_text("consumed")
    expect(panel.locator(".shares li")).to_have_count(9)
    expect(panel.locator(".shares li").last).to_have_text(re.compile(r"^\d+ others.?\d+\.\d{3}$"))
    expect(why).to_have_attribute("aria-expanded", "true")
    why.click()
    expect(panel).to_have_count(0)
    expect(why).to_have_attribute("aria-expanded", "false")


def test_an_explanation_has_room_on_a_phone(browser: Browser, served: Served) -> None:
    narrow = watch(browser, served.url, width=360, height=800)
    page = narrow.open()
    expect(page.locator("#list > li")).to_have_count(20)
    until_whole(page)
    page.locator("#list > li").nth(1).get_by_role("button", name=re.compile("^Why")).click()
    expect(page.locator(".why .shares li")).to_have_count(9)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert narrow.problems == []
    page.context.close()
