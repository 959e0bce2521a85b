"""report: one page to read offline: what the ranker learnt from, how well it does, and beside what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import jinja2

from infra.catalog.features.ranking import RANKER_FEATURES
from spark_jobs.training import plots
from spark_jobs.training.ablation import TREES as ABLATION_TREES
from spark_jobs.training.ablation import Without
from spark_jobs.training.evaluation import NDCG, RECALL, Evaluation
from spark_jobs.training.one_list import SHOWN
from spark_jobs.training.past import Recipe
from spark_jobs.training.plots import Plot
from spark_jobs.training.ranker import SHAPE, Ranker
from spark_jobs.training.split import GlobalSplit, Split
from spark_jobs.training.worth import Worth

_PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class Told:
    """All that the page tells. gains: each feature's share of the trees' gain, largest first. worth: of each stage, in their order;
    without: of each group of features; both empty where nothing was learnt."""

    snapshot: str
    dataset: str
    split: Split
    first_event: datetime
    last_event: datetime
    ranker: Ranker
    judged: Evaluation
    gains: dict[str, float]
    worth: tuple[Worth, ...]
    without: tuple[Without, ...]
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class _Fact:
    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class _Card:
    title: str
    text: str
    plot: Plot


def render(told: Told) -> str:
    """The page: one file, no script, nothing fetched."""
    page = _template()
    better, verdict = verdict_of(told)
    metrics = (NDCG, RECALL)
    rows = [(order, [_figure(told.judged.metrics[order].get(metric)) for metric in metrics]) for order in plots.ORDERS]
    return page.render(
        snapshot=told.snapshot,
        dataset=told.dataset,
        better=better,
        verdict=verdict,
        facts=_facts(told),
        split=told.split.describe(),
        timeline=_timeline(told),
        cards=_cards(told),
        metrics=metrics,
        rows=rows,
        made=_made(told.ranker, told.recipe),
    )


def render_unranked(snapshot: str, dataset: str, ranker: Ranker, recipe: Recipe) -> str:
    """The page of a snapshot that was to have no ranker: there is nothing to judge, and it says so."""
    return _template().render(
        snapshot=snapshot,
        dataset=dataset,
        better=True,
        verdict="No ranker was wanted (HEADGATE_RANKER_TREES=0): every list keeps the order of retrieval.",
        facts=[],
        split="nothing was learnt, and nothing was judged",
        timeline=None,
        cards=[],
        metrics=(),
        rows=[],
        made=_made(ranker, recipe),
    )


def _template() -> jinja2.Template:
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined).get_template(_PAGE)


def verdict_of(told: Told) -> tuple[bool, str]:
    """Whether the ranker is worth its time, and one sentence about it."""
    judged = told.judged
    if not judged.users:
        return False, "Nobody left labels in the held-out window, so nothing can be said about quality."
    if not told.ranker.learnt:
        return (
            False,
            "Too few users took one of their candidates to learn from: this ranker keeps the order of retrieval.",
        )
    mine, base = judged.ranker.ndcg.mean(), judged.retrieval.ndcg.mean()
    gained, give = judged.gain_over_retrieval()
    share = f" ({mine / base - 1:+.0%})" if base > 0 else ""
    figures = f"{NDCG.upper()} {mine:.4f} against {base:.4f}{share}, difference {gained:+.4f} ± {give:.4f}"
    if gained > give:
        return True, f"The ranker orders candidates better than retrieval does: {figures}."
    if gained < -give:
        return False, f"The ranker orders candidates worse than retrieval does: {figures}."
    return gained >= 0, f"The ranker and retrieval cannot be told apart on these users: {figures}."


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _facts(told: Told) -> list[_Fact]:
    judged, metrics = told.judged, told.judged.metrics
    over = {name: metrics[name].get(NDCG) for name in ("retrieval", "popularity")}
    beside = ", ".join(f"{name} {_figure(value)}" for name, value in over.items())
    return [
        _Fact(NDCG.upper(), _figure(metrics["ranker"].get(NDCG)), beside),
        _Fact(
            RECALL.capitalize(),
            _figure(metrics["ranker"].get(RECALL)),
            f"at most {judged.ceiling:.3f}: the share that is anywhere in the list",
        ),
        _Fact("Users who teach", f"{told.ranker.users:,}", f"{told.ranker.rows:,} candidates"),
        _Fact("Users who judge", f"{judged.users:,}", f"whole lists of up to {judged.list_length:,}"),
    ]


def _cards(told: Told) -> list[_Card]:
    judged = told.judged
    if not judged.users:
        return []
    cards = [
        _Card(
            f"The first {SHOWN}, in three orders",
            "Same users, same held-out window, what a user had taken before is hidden from all three. Every user counts, "
            "also those whose items were not retrieved.",
            plots.quality(judged),
        )
    ]
    if told.ranker.learnt:
        cards.append(
            _Card(
                "What the trees look at",
                "Share of all splits' gain by feature. Correlated features share what either would have alone.",
                plots.features(told.gains),
            )
        )
    if told.worth:
        cards.append(
            _Card(
                "What each stage adds",
                f"{NDCG.upper()} after each stage, with the 95 % interval of what it adds to the last one before it that is on "
                "(paired bootstrap over users). A stage whose interval does not lie above 0 is off: serving does not apply it. "
                + _off(told.worth),
                plots.stages(told.worth),
            )
        )
    if told.without:
        cards.append(
            _Card(
                "What each group of features is worth",
                f"{NDCG.upper()} that {ABLATION_TREES} trees lose when they are taught and judged without a group. What the user "
                "took since the batch is part of the history as well, so that genre and creator matches see it without the stream.",
                plots.groups(told.without),
            )
        )
    return [
        *cards,
        _Card(
            "With fewer trees",
            "The sum of the first trees is itself a ranker. The number served was set beforehand, not chosen from this curve.",
            plots.learning(judged),
        ),
        _Card(
            "Where the taken items lie",
            "Share of users who went on to take the item at a position: a good order falls steeply from the left.",
            plots.positions(judged),
        ),
    ]


def _off(worth: Sequence[Worth]) -> str:
    names = [one.name for one in worth if not one.on]
    return f"Off in this snapshot: {', '.join(names)}." if names else "All are on in this snapshot."


def _timeline(told: Told) -> Plot | None:
    if not isinstance(told.split, GlobalSplit):
        return None
    cuts = [told.first_event, told.split.train_from, told.split.held_out_from, told.last_event]
    days = [(high - low) / timedelta(days=1) for low, high in pairwise(cuts)]
    names = ("history", "labels to learn from", "held out")
    spans = [
        (f"{name}, {length:.3g} days".replace(", 1 days", ", 1 day"), length)
        for name, length in zip(names, days, strict=True)
    ]
    return plots.timeline(spans, ends=[cut.astimezone(UTC).strftime("%Y-%m-%d") for cut in cuts])


def _made(ranker: Ranker, recipe: Recipe) -> list[tuple[str, str]]:
    seen = "also" if recipe.include_seen else "without"
    params = ", ".join(f"{name} {value}" for name, value in SHAPE.items()) if ranker.learnt else "keeps the order"
    return [
        ("Objective", ranker.objective),
        ("Trees", f"{ranker.trees}; {params}"),
        (
            "Candidates",
            f"{recipe.k:,} a user by {recipe.algorithm}, {recipe.dim} dimensions, {seen} what the user has taken",
        ),
        (
            "Features",
            f"{len(RANKER_FEATURES)}, computed by the function that the service calls, from values rounded as they are stored",
        ),
        ("Signature", ranker.signature),
        ("Seed", str(recipe.seed)),
    ]
