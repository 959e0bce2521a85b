"""plots: the report's pictures, drawn once as SVG whose colours are the page's, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.typing import RcKeyType

from spark_jobs.training.ablation import Without
from spark_jobs.training.evaluation import NDCG, RECALL, Evaluation
from spark_jobs.training.worth import Worth

COLOURS = {"--ink": "#010101", "--soft": "#020202", "--line": "#030303", "--bar": "#040404", "--bar-2": "#050505"}
"""Each of the page's colours and its stand-in while drawing."""

_INK, _SOFT, _LINE, _BAR, _BAR_2 = COLOURS.values()

ORDERS = {"ranker": _BAR, "retrieval": _BAR_2, "popularity": _SOFT}

_STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",  # text stays text: it can be found, read aloud and set in the page's own face
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture: its SVG, ready to stand in a page, and what it shows in a sentence."""

    svg: str
    says: str


def _drawing(*, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _inline(figure: Figure, *, name: str) -> str:
    """The figure as an <svg> element, ids of its own, colours by the page's variables."""
    with mpl.rc_context({"svg.hashsalt": name}):
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def quality(judged: Evaluation) -> Plot:
    """The three orders side by side."""
    with mpl.rc_context(_STYLE):
        figure, axes = _drawing(width=6.4, height=2.9)
        metrics = judged.metrics
        for at, (order, colour) in enumerate(ORDERS.items()):
            for place, metric in enumerate((NDCG, RECALL)):
                value = metrics[order].get(metric, 0.0)
                x = place + (at - 1) * 0.27
                axes.bar(x, value, 0.24, color=colour, label=order if place == 0 else None)
                axes.annotate(f"{value:.4f}", (x, value), (0, 3), textcoords="offset points", ha="center", fontsize=9)
        axes.set_xticks([0, 1], [NDCG.upper(), RECALL.capitalize()])
        axes.tick_params(axis="x", labelcolor=_INK)
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.14)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        said = "; ".join(f"{order} {metrics[order].get(NDCG, 0.0):.4f}" for order in ORDERS)
        return Plot(_inline(figure, name="quality"), f"{NDCG.upper()}: {said}")


def stages(worth: Sequence[Worth]) -> Plot:
    """NDCG after each stage, what is off in grey, and the interval of what each adds."""
    with mpl.rc_context(_STYLE):
        figure, axes = _drawing(width=6.4, height=2.9)
        for at, one in enumerate(worth):
            axes.bar(at, one.ndcg10, 0.5, color=_BAR if one.on else _SOFT)
            base = one.ndcg10 - one.gain.mean
            if at:
                axes.vlines(at, base + one.gain.low95, base + one.gain.high95, color=_INK, linewidth=1.6)
            note = f"{one.ndcg10:.4f}" + (f"\n{one.gain.mean:+.4f}" if at else "")
            top = max(one.ndcg10, base + one.gain.high95)
            axes.annotate(note, (at, top), (0, 4), textcoords="offset points", ha="center", fontsize=9)
        axes.set_xticks(range(len(worth)), [one.name if one.on else f"{one.name} (off)" for one in worth])
        axes.tick_params(axis="x", labelcolor=_INK)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(NDCG.upper())
        axes.margins(y=0.2)
        said = "; ".join(f"{one.name} {one.ndcg10:.4f}{'' if one.on else ', off'}" for one in worth)
        return Plot(_inline(figure, name="stages"), f"{NDCG.upper()} after each stage: {said}")


def groups(without: Sequence[Without]) -> Plot:
    """What the trees lose without each group."""
    with mpl.rc_context(_STYLE):
        figure, axes = _drawing(width=6.4, height=0.55 * len(without) + 0.7)
        for row, one in enumerate(reversed(without)):
            axes.barh(row, one.loss.mean, 0.5, color=_BAR if one.loss.low95 > 0 else _SOFT)
            axes.hlines(row, one.loss.low95, one.loss.high95, color=_INK, linewidth=1.6)
        names = [f"{one.group} ({one.features})" for one in reversed(without)]
        axes.set_yticks(range(len(without)), names)
        axes.axvline(0, color=_SOFT, linewidth=1)
        axes.set_xlabel(f"{NDCG.upper()} lost without")
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.grid(axis="y", visible=False)
        said = "; ".join(
            f"{one.group} {one.loss.mean:+.4f} ({one.loss.low95:+.4f} to {one.loss.high95:+.4f})" for one in without
        )
        return Plot(_inline(figure, name="groups"), f"{NDCG.upper()} lost without a group: {said}")


def learning(judged: Evaluation) -> Plot:
    """What the ranker cut short would reach."""
    with mpl.rc_context(_STYLE):
        figure, axes = _drawing(width=6.4, height=2.7)
        trees, values = zip(*judged.curve, strict=True)
        base = judged.metrics["retrieval"].get(NDCG, 0.0)
        axes.plot(trees, values, color=_BAR, marker="o", markersize=4, linewidth=2)
        axes.axhline(base, color=_BAR_2, linewidth=1.6, linestyle=(0, (4, 3)))
        axes.annotate(
            "retrieval alone", (trees[-1], base), (0, 4), textcoords="offset points", ha="right", color=_BAR_2
        )
        axes.set_xlabel("trees evaluated")
        axes.set_ylabel(NDCG.upper())
        axes.set_xlim(left=0)
        axes.margins(y=0.2)
        return Plot(
            _inline(figure, name="learning"),
            f"{NDCG.upper()} after {trees[0]} trees {values[0]:.4f}, after all {values[-1]:.4f}",
        )


def features(gains: Mapping[str, float]) -> Plot:
    """Each feature's share of the gain."""
    names, values = list(gains)[::-1], list(gains.values())[::-1]
    with mpl.rc_context(_STYLE):
        figure, axes = _drawing(width=6.4, height=0.27 * len(names) + 0.5)
        axes.barh(names, values, 0.66, color=_BAR)
        for row, value in enumerate(values):
            axes.annotate(f"{value:.1%}", (value, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12, y=0.02)
        return Plot(_inline(figure, name="features"), f"most of the gain: {', '.join(names[:-4:-1])}")


def positions(judged: Evaluation) -> Plot:
    """Where in the list the items lie that users went on to take."""
    with mpl.rc_context(_STYLE):
        figure, axes = _drawing(width=6.4, height=2.7)
        for name, order in (("ranker", judged.ranker), ("retrieval", judged.retrieval)):
            places = range(1, len(order.hits_at) + 1)
            axes.plot(places, order.hits_at, color=ORDERS[name], linewidth=1.8, marker="o", markersize=2.6, label=name)
        axes.set_xlabel("position in the list")
        axes.set_ylabel("users who took it")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
        first = ", ".join(
            f"{name} {order.hits_at[0]:.1%}"
            for name, order in (("ranker", judged.ranker), ("retrieval", judged.retrieval))
        )
        return Plot(_inline(figure, name="positions"), f"users who took the item at position 1: {first}")


def timeline(spans: Sequence[tuple[str, float]], *, ends: Sequence[str]) -> Plot:
    """spans: what a stretch of time is for and its length, oldest first; ends: the moments before, between and after them.

    Not to scale: a day beside eight weeks would be a hair. A long history is half of the width, labels share the rest.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _drawing(width=9.6, height=0.95)
        edges = (0.0, 0.5, 0.75, 1.0)
        for at, ((name, _), colour) in enumerate(zip(spans, (_LINE, _BAR, _BAR_2), strict=True)):
            axes.barh(0, edges[at + 1] - edges[at], 0.5, left=edges[at], color=colour)
            axes.text(edges[at], 0.36, name, ha="left", va="bottom", fontsize=9.5)
        for at, (edge, moment) in enumerate(zip(edges, ends, strict=True)):
            axes.text(
                edge, -0.36, moment, ha="right" if at == len(ends) - 1 else "left", va="top", fontsize=8.5, color=_SOFT
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.8, 0.8)
        axes.set_axis_off()
        return Plot(_inline(figure, name="timeline"), ", then ".join(name for name, _ in spans))
