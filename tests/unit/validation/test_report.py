"""The report: one page that needs nothing else, says what was found, and lets no title or id become markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.snapshots.tables import ITEM_TABLE
from tests.fixtures.tiny_snapshot import build_tiny_snapshot, tiny_world
from tests.unit.validation.spoilings import drop_user, offer_the_worst, rename_items
from tests.unit.validation.workbench import Row, Workbench, with_leaves
from validation.gate import Outcome
from validation.report.pictures import concentration, gini, pictures
from validation.report.plots import curves, histogram, ticks
from validation.report.samples import samples
from validation.report.shown import shown

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raise %}",
    "line\nbreak\rNUL\x00",
    "turned \u202e around",
    "x" * 5000,
    "&amp; 'quoted' \u2603",
)


class Page(HTMLParser):
    """Which elements the page has, whether they are balanced, and what it would load."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def page_of(outcome: Outcome) -> tuple[str, Page]:
    text = Path(outcome.filed.page).read_text()
    return text, Page(text)


def test_the_page_is_one_file_that_loads_nothing_and_runs_nothing(bench: Workbench) -> None:
    text, page = page_of(bench.judge(live="v1"))
    assert page.elements.count("html") == 1
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.elements)
    assert not page.loads
    assert not page.handlers
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text
    assert page.elements.count("svg") == 4


def test_a_refusal_is_told_at_the_top_and_before_what_passed(bench: Workbench) -> None:
    bench.edit_rows(drop_user)
    _, page = page_of(bench.judge(live="v1"))
    said = page.text
    assert said.index("Refused: coverage. What is live stays live.") < said.index("1 of 120 users have no list")
    assert said.index("user 'u3' (index 3): no list") < said.index("all 120 users")
    assert "one list for each of the 120 users with events" in said


def test_the_page_shows_what_an_operator_asks_for(bench: Workbench) -> None:
    _, page = page_of(bench.judge(live="v1"))
    manifest = bench.manifest
    for part in (manifest.digest, "d-tiny", "20 trees over 30 features", "ndcg@10", "0.2000", "0.1000", "PSI", "Gini"):
        assert part in page.text
    assert "The Drama of" in page.text


def test_titles_and_ids_cannot_become_markup(tmp_path: Path) -> None:
    plain = tiny_world(users=30, items=80)
    ids = [f"{NASTY[at % len(NASTY)][:200]}{at}" for at in range(30)]
    world = type(plain)(plain.user_vectors, plain.item_vectors, plain.histories, ids)
    bench = Workbench(str(tmp_path), build_tiny_snapshot(str(tmp_path), world=world, k=20), world)

    def change(table: pa.Table) -> pa.Table:
        titles = pa.array([f"{NASTY[at % len(NASTY)]}{at}" for at in range(80)])
        names = pa.array([f"{at}{NASTY[at % len(NASTY)]}" for at in range(80)])
        return table.set_column(1, "item_id", names).set_column(2, "title", titles)

    bench.edit_table(ITEM_TABLE, change)
    bench.edit_rows(lambda rows: rows.__delitem__(slice(0, 5)))
    outcome = bench.judge()
    text, page = page_of(outcome)
    assert not {"script", "img"} & set(page.elements)
    assert not page.handlers
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search("[\x00\r\u202e]", text)
    assert "x" * 500 not in text
    with pytest.raises(Exception, match="coverage") as refused:
        outcome.require_passed()
    assert "\n" not in str(refused.value)


def test_a_broken_snapshot_is_drawn_as_far_as_it_goes(bench: Workbench) -> None:
    def change(rows: list[Row]) -> None:
        for row in rows:
            row["item_indices"] = row["scores"] = row["history"] = b""

    bench.edit_rows(change)
    _, page = page_of(bench.judge(live="v1"))
    assert "There is no finite score" in page.text
    assert "No item is in any list" in page.text


def test_a_snapshot_whose_files_changed_is_reported_without_pictures(bench: Workbench) -> None:
    bench.version.storage.remove(bench.files(ITEM_TABLE)[0])
    _, page = page_of(bench.judge(live="v1"))
    assert "svg" not in page.elements
    assert "is missing" in page.text
    assert bench.manifest.digest in page.text


def test_a_snapshot_without_a_manifest_has_a_page_too(bench: Workbench) -> None:
    bench.version.storage.write("manifest.json", b"<script>")
    _, page = page_of(bench.judge())
    assert "unreadable" in page.text
    assert "script" not in page.elements


def test_the_record_for_machines_holds_the_same_findings(bench: Workbench) -> None:
    offer_the_worst(0.5)(bench)
    outcome = bench.judge(live="v1")
    record = json.loads(Path(outcome.filed.record).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert record["verdict"] == "refused"
    assert record["digest"] == bench.manifest.digest
    assert [finding["check"] for finding in record["findings"]] == [
        finding.check for finding in outcome.ruling.judgement.findings
    ]
    assert record["figures"]["recall_mean"] < 0.95
    assert record["facts"]["length_min"] == 100


def test_great_expectations_own_results_lie_beside_the_report(bench: Workbench) -> None:
    rename_items(bench)
    outcome = bench.judge(live="v1")
    found = json.loads(Path(outcome.filed.expectations).read_text())
    results = {
        result["expectation_config"]["meta"]["check"]: result
        for document in found["validations"]
        for result in document["results"]
    }
    decided = {finding.check for finding in outcome.ruling.judgement.findings}
    assert set(results) == decided
    assert not results["overlap"]["success"]
    assert results["coverage"]["expectation_config"]["kwargs"]["column"] in {"n_lists", "expected", "id_is_right"}
    assert found["great_expectations"]


def test_a_drawing_is_well_formed_whatever_its_labels_say() -> None:
    edges = np.linspace(0, 1, 5)
    x, y, title = NASTY[0], NASTY[1], NASTY[1]
    halves, even = np.array([0, 0.5, 0.25, 0.25]), np.full(4, 0.25)
    marks = [(0.5, NASTY[0])]
    for plot in (
        histogram(edges, halves, other=even, marks=marks, x_label=x, y_label=y, title=title),
        histogram(edges, np.zeros(4), x_label=x, y_label=y, title=title),
        curves([("bar", edges, edges**2)], diagonal=True, x_label=x, y_label=y, title=title),
    ):
        root = ElementTree.fromstring(str(plot))
        assert "script" not in {element.tag for element in root.iter()}
        numbers = re.findall(r"nan|inf", str(plot).replace(NASTY[0], ""))
        assert not numbers


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-3, 1e6),
    most=st.integers(2, 9),
)
def test_ticks_are_few_rising_and_inside(low: float, span: float, most: int) -> None:
    found = ticks(low, low + span, most=most)
    assert 1 <= len(found) <= most + 1
    assert found == sorted(found)
    assert all(low - 1e-6 * (abs(low) + span) <= value <= low + span + 1e-6 * (abs(low) + span) for value in found)


def test_concentration_and_gini_are_those_of_the_textbook() -> None:
    even, single = np.full(10, 7), np.eye(1, 10, dtype=np.int64)[0]
    assert gini(even) == pytest.approx(0.0, abs=1e-12)
    assert gini(single) == pytest.approx(0.9)
    assert concentration(np.array([1, 3, 0])).tolist() == [0.0, 0.75, 1.0, 1.0]
    assert gini(np.zeros(3, np.int64)) == 0.0


def test_the_pictures_numbers_are_those_of_the_lists(bench: Workbench) -> None:
    drawn = {picture.title: picture for picture in pictures(bench.case(live="v1"))}
    assert drawn["List lengths"].numbers["shortest"] == "100"
    assert drawn["Overlap with the live lists"].numbers["mean"] == "1.000"
    assert drawn["Stored scores"].numbers["PSI"] == "0.0000"
    assert drawn["Exposure of the catalogue"].numbers["items in lists"].endswith("%")


@given(st.text())
def test_shown_text_is_one_printable_line_of_bounded_length(text: str) -> None:
    found = shown(text, limit=20)
    assert found.isprintable()
    assert len(found) <= 21 * 10
    if text.isprintable() and len(text) <= 20:
        assert found == text


def test_a_sample_shows_the_place_that_the_ranker_gives(bench: Workbench) -> None:
    ordered = [offer.ranked for sample in samples(bench.case()) for offer in sample.offers]
    assert ordered != [str(place) for _ in range(4) for place in range(1, 11)]
    bench.edit_ranker(lambda model: with_leaves(model, 0.25))
    assert [offer.ranked for offer in samples(bench.case())[0].offers] == [str(place) for place in range(1, 11)]
    bench.edit_ranker(lambda model: b"no model")
    assert {offer.ranked for offer in samples(bench.case())[0].offers} == {"none"}
