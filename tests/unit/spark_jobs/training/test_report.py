"""The report is one page that needs nothing else, and says plainly where the ranker is not better."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pytest

from spark_jobs.training.ablation import ablation
from spark_jobs.training.evaluation import evaluate
from spark_jobs.training.past import Recipe
from spark_jobs.training.ranker import gains, keep_order
from spark_jobs.training.report import Told, render, verdict_of
from spark_jobs.training.scorers import judged, teach
from spark_jobs.training.split import GlobalSplit, PerUserSplit
from tests.unit.spark_jobs.training.test_ranker import examples

END = datetime(2024, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def told() -> Told:
    teaching, judging = examples(users=120, rows=30), examples(users=60, rows=30, seed=4)
    scorers = teach(teaching, trees=20, seed=1, longest=30)
    ranker = scorers.ranker
    return Told(
        snapshot="ranking/v<1>",
        dataset="d & co",
        split=GlobalSplit(END - 2 * DAY, END - DAY, DAY, "120 users teach"),
        first_event=END - 30 * DAY,
        last_event=END,
        ranker=ranker,
        judged=evaluate(ranker.booster(), judging, trees=20),
        gains=gains(ranker.booster()),
        worth=judged(scorers, judging, seed=1),
        without=ablation(teaching, judging, seed=1, trees=10),
        recipe=Recipe("spectral", 16, 30, include_seen=False, seed=1),
    )


class _Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]


def test_the_page_holds_its_pictures_and_fetches_nothing(told: Told) -> None:
    page = render(told)
    assert not re.search(r'(?:src|href)="(?!#)|@import|url\((?!#)|<script', page)
    parsed = _Ids()
    parsed.feed(page)
    assert parsed.tags.count("svg") == 7 and len(parsed.ids) == len(set(parsed.ids)), "no two pictures share an id"
    assert "ranking/v&lt;1&gt;" in page and "d &amp; co" in page


def test_the_pictures_take_their_colours_from_the_page_so_that_dark_is_dark(told: Told) -> None:
    page = render(told)
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--bar)" in pictures and "var(--ink)" in pictures and not re.search(r"#0[1-5]0[1-5]0[1-5]", pictures)
    assert not re.search(r"#(?:000000|ffffff)", pictures) and "prefers-color-scheme: dark" in page


def test_the_same_figures_make_the_same_page(told: Told) -> None:
    assert render(told) == render(told)


def test_the_verdict_says_better_worse_and_cannot_be_told(told: Told) -> None:
    assert verdict_of(told)[0] and "better than retrieval" in verdict_of(told)[1]
    figures = told.judged
    swapped = dataclasses.replace(figures, ranker=figures.retrieval, retrieval=figures.ranker)
    worse = dataclasses.replace(told, judged=swapped)
    assert (
        not verdict_of(worse)[0]
        and "worse than retrieval" in render(worse)
        and 'class="verdict worse"' in render(worse)
    )
    even = dataclasses.replace(told, judged=dataclasses.replace(figures, ranker=figures.retrieval))
    assert "cannot be told apart" in render(even)


def test_it_is_readable_where_nothing_was_learnt_and_nobody_judged(told: Told) -> None:
    ranker = keep_order(trees=3, longest=30)
    nobody = evaluate(ranker.booster(), examples(users=2, rows=5).where(np.zeros(2, np.bool_)), trees=3)
    split = PerUserSplit(0.15, "nobody came twice")
    bare = dataclasses.replace(
        told, split=split, ranker=ranker, judged=nobody, gains=gains(ranker.booster()), worth=(), without=()
    )
    page = render(bare)
    assert "nothing can be said about quality" in page and "nobody came twice" in page and "<svg" not in page
    some = evaluate(ranker.booster(), examples(users=9, rows=30), trees=3)
    assert "keeps the order of retrieval" in render(dataclasses.replace(bare, judged=some))


def test_a_stage_that_adds_nothing_is_named_as_off(told: Told) -> None:
    off = [one.name for one in told.worth if not one.on]
    assert off and "ranker" not in off
    assert f"Off in this snapshot: {', '.join(off)}" in render(told)
    everything = dataclasses.replace(told, worth=tuple(dataclasses.replace(one, on=True) for one in told.worth))
    assert "All are on in this snapshot" in render(everything)
