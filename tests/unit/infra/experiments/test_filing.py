"""Filing: what lies beside the snapshot when a canary has ended, what stands when it is filed twice, and the page people read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import redis

from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.exposures import Arm
from infra.contracts.ids import ApplicationName
from infra.experiments.filing import file_ruling, filed_result, look, newest_look, newest_result, record_of
from infra.experiments.judgement import Verdict, judge
from infra.experiments.page import render
from infra.experiments.ruling import Ruling
from infra.experiments.shadow import report_shadow
from infra.snapshots import keys
from infra.snapshots.connection import batch_client
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.marked_snapshot import write_marked_snapshot
from tests.unit.infra.experiments.scenes import GENERATION, LIVE, RULE, RULES, after, canary, drawn_visits, shown

RANKING = ApplicationName("ranking")
TRIED = canary(0.5)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    store = SnapshotStore(str(tmp_path / "store"), RANKING)
    write_marked_snapshot(store, generation=0)
    return write_marked_snapshot(store, generation=1)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = batch_client(redis_url)
    client.flushall()
    yield client
    client.flushall()
    client.close()


def worse(*, generation: int = GENERATION, actor: str = "canary", tried: Canary = TRIED) -> Ruling:
    found = judge(drawn_visits(tried, 4000, clicks=(0.3, 0.15)), tried, RULES, after(5400))
    return Ruling(RANKING, LIVE, tried, generation, actor, found)


def unseen() -> Ruling:
    tried = canary(1.0, mode=CanaryMode.SHADOW)
    lists = [shown("a", 0, request="r"), shown("a", 0, request="r", arm=Arm.SHADOW), shown("b", 1)]
    found = report_shadow(
        lists,
        [],
        canary=tried,
        generation=GENERATION,
        rule=RULE,
        lasts=timedelta(hours=1),
        now=after(3600),
    )
    return Ruling(RANKING, LIVE, tried, GENERATION, "canary", found)


def test_a_ruling_is_filed_as_a_record_and_a_page_named_by_its_generation(version: Version) -> None:
    assert newest_result(version) is None and filed_result(version, GENERATION) is None
    filed = file_ruling(version, worse())
    assert version.storage.names("canary") == ["000000000007.html", "000000000007.json"]
    assert (filed.version, filed.generation, filed.mode, filed.fraction) == ("v2", 7, CanaryMode.CANARY, 0.5)
    assert filed.verdict is Verdict.ROLLED_BACK and filed.judged_at == after(5400)
    assert re.fullmatch(r"click-through -\d+\.\d % \[-\d+\.\d, -\d+\.\d\] of 4,000 users: rolled back", filed.summary)
    assert filed.because.startswith("Surely worse") and filed.page == "canary/000000000007.html"
    assert newest_result(version) == filed_result(version, GENERATION) == filed


def test_a_ruling_that_was_filed_stands(version: Version) -> None:
    filed = file_ruling(version, worse())
    page = version.storage.read(filed.page)
    again = file_ruling(version, replace(worse(actor="ada"), found=replace(worse().found, verdict=Verdict.PROMOTED)))
    assert again == filed and version.storage.read(filed.page) == page


def test_the_newest_result_is_that_of_the_highest_generation(version: Version) -> None:
    file_ruling(version, worse(generation=10))
    file_ruling(version, worse(generation=9))
    newest = newest_result(version)
    assert newest is not None and newest.generation == 10


def test_nothing_that_is_sealed_changes(version: Version) -> None:
    before = version.manifest()
    file_ruling(version, worse())
    assert version.manifest() == before and "canary" not in " ".join(before.parts)


def test_the_record_has_every_figure_and_the_points_of_the_pictures(version: Version) -> None:
    file_ruling(version, worse())
    record = json.loads(version.storage.read("canary/000000000007.json"))
    assert (record["application"], record["live"], record["actor"], record["digest"]) == (
        "ranking",
        "v1",
        "canary",
        "d" * 64,
    )
    clicks = record["metrics"][0]
    assert clicks["low"] <= clicks["difference"] <= clicks["high"] < 0
    assert len(clicks["path"]["users"]) == len(clicks["path"]["low"]) > 100
    assert record["live_users"] + record["canary_users"] == 4000 and record["mismatch"] < 1000


def test_what_is_not_known_is_null_in_the_record(version: Version) -> None:
    nobody = judge(drawn_visits(TRIED, 0), TRIED, RULES, after(RULES.lasts.total_seconds()))
    file_ruling(version, replace(worse(), found=nobody))
    clicks = json.loads(version.storage.read("canary/000000000007.json"))["metrics"][0]
    assert (clicks["low"], clicks["high"], clicks["live_mean"]) == (None, None, None)
    assert b"Too few users for an interval" in version.storage.read("canary/000000000007.html")


def test_a_look_is_kept_in_redis_without_pictures_and_told_as_a_result(client: redis.Redis) -> None:
    assert newest_look(client, RANKING) is None
    look(client, worse())
    kept = json.loads(client.get(keys.canary_look(RANKING)) or b"")
    assert "path" not in kept["metrics"][0] and kept["metrics"][0]["low"] < 0
    told = newest_look(client, RANKING)
    assert told is not None and (told.generation, told.verdict, told.page) == (7, Verdict.ROLLED_BACK, "")
    assert record_of(worse())["metrics"][0]["path"]["users"]  # type: ignore[index]


class _Page(HTMLParser):
    """Tags opened and closed, and what any attribute would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in {"src", "href", "data"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("ruling", [worse(), unseen()], ids=["canary", "shadow"])
def test_the_page_is_one_well_formed_file_that_loads_nothing(ruling: Ruling) -> None:
    html = render(ruling).decode()
    page = _Page()
    page.feed(html)
    assert page.open == [] and page.loads == [] and "script" not in page.tags
    assert "default-src 'none'" in html and "url(" not in html and ruling.found.because in html


def test_the_page_shows_the_verdict_the_figures_and_a_picture_a_metric() -> None:
    html = render(worse()).decode()
    assert '<p class="verdict">rolled back</p>' in html and 'data-tone="bad"' in html
    assert html.count("<svg") == html.count('class="band"') == html.count(">no difference</text>") == 4
    assert html.count(">margin</text>") == 4
    for told in (
        "surely worse",
        "undecided",
        "click-through",
        "degraded lists",
        "50 % of users",
        "90 min",
        "of generation 7",
    ):
        assert told in html, told


def test_a_pictures_points_are_inside_the_drawing() -> None:
    """Also where the first intervals are far wider than the scale, and where users are exactly enough for one point."""
    for users in (110, 4000):
        found = judge(drawn_visits(TRIED, users), TRIED, RULES, after(5400))
        html = render(replace(worse(), found=found)).decode()
        points = [
            tuple(map(float, point.split(",")))
            for line in re.findall(r'points="([^"]+)"', html)
            for point in line.split()
        ]
        x, y = np.array(points).T
        assert x.min() >= 58 and x.max() <= 496 and y.min() >= 14 and y.max() <= 188


def test_what_people_wrote_is_escaped() -> None:
    found = replace(worse().found, because="Ended by <b>ada</b>: <script>x</script>", verdict=Verdict.ENDED)
    html = render(replace(worse(actor="<i>ada</i>"), found=found)).decode()
    assert "<script" not in html and "<b>" not in html and "<i>" not in html
    assert "&lt;script&gt;x" in html and 'data-tone="warm"' in html


def test_a_shadows_page_has_no_metrics_and_says_what_it_does_not_know() -> None:
    html = render(unseen()).decode()
    for told in (
        "expired",
        "overlap of the first 10",
        "50.00%",
        "not known",
        "100 % of users",
        "2 requests",
        "1 pairs",
    ):
        assert told in html, told
    assert "<svg" not in html
