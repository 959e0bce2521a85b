"""page: how a canary or a shadow ended, as one HTML file that needs no network and runs no script."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import jinja2

from infra.experiments.judgement import Compared, Judgement, Verdict
from infra.experiments.mismatch import VOID_AT
from infra.experiments.plot import sequence
from infra.experiments.ruling import Ruling
from infra.experiments.shadow import TOP, ShadowReport
from infra.snapshots.pages import style

_FOLDER = Path(__file__).parent
_TONE = {Verdict.PROMOTED: "good", Verdict.ROLLED_BACK: "bad"}
_UNKNOWN = "not known"


def render(ruling: Ruling) -> bytes:
    """The page; what people wrote in it (an actor's name) is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = ruling.found
    judged = isinstance(found, Judgement)
    html = environment.get_template("page.html").render(
        style=style(_FOLDER / "page.css"),
        ruling=ruling,
        found=found,
        tone=_TONE.get(found.verdict, "warm"),
        verdict=found.verdict.replace("_", " "),
        lasted=_lasted(found.judged_at - ruling.canary.started_at),
        metrics=[metric_row(metric) for metric in found.metrics] if isinstance(found, Judgement) else [],
        pictures=[(metric.title, sequence(metric)) for metric in found.metrics] if isinstance(found, Judgement) else [],
        judged=judged,
        facts=canary_facts(found) if isinstance(found, Judgement) else {},
        shadow=shadow_rows(found) if isinstance(found, ShadowReport) else [],
    )
    return html.encode()


def metric_row(metric: Compared) -> dict[str, str]:
    """One line of the table, in per cent and percentage points."""
    if metric.surely_worse:
        word, tone = "surely worse", "bad"
    elif metric.surely_good_enough:
        word, tone = "good enough", "good"
    else:
        word, tone = "undecided", "soft"
    return {
        "title": metric.title,
        "wanted": "more" if metric.better > 0 else "less",
        "live": _percent(metric.live_mean),
        "canary": _percent(metric.canary_mean),
        "difference": _points(metric.difference),
        "interval": f"{_points(metric.low)} to {_points(metric.high)}"
        if math.isfinite(metric.low)
        else "too few users",
        "margin": _points(metric.margin),
        "word": word,
        "tone": tone,
    }


def canary_facts(found: Judgement) -> dict[str, str]:
    """Beside the metrics: how many users, and whether they were split and served as they were meant to be."""
    split = "as meant" if found.mismatch < VOID_AT else "not as meant: the comparison is void"
    return {
        "users of the canary": f"{found.canary_users:,}",
        "users beside it": f"{found.live_users:,}",
        "users whose visit was not over": f"{found.pending:,}",
        "median latency, live and canary": f"{_ms(found.latency_live.p50_ms)}, {_ms(found.latency_canary.p50_ms)}",
        "p99 latency, live and canary": f"{_ms(found.latency_live.p99_ms)}, {_ms(found.latency_canary.p99_ms)}",
        "canary's lists answered by the live snapshot": _percent(found.unserved),
        "lists logged for the wrong side": f"{found.misassigned:,}",
        "split of the users": f"{split} (e-value {found.mismatch:.3g}, void at {VOID_AT:,.0f})",
    }


def shadow_rows(found: ShadowReport) -> list[tuple[str, str, str]]:
    """(what, shown, shadow) of each line; one that is about both has an empty middle."""
    clicked = found.clicked
    return [
        ("lists compared", f"{found.requests:,} requests", f"{found.pairs:,} pairs"),
        ("requests without a shadow list", "", _percent(found.missing)),
        (f"overlap of the first {TOP}", "", _percent(found.overlap_page)),
        ("overlap of all", "", _percent(found.overlap_all)),
        ("same first item", "", _percent(found.same_first)),
        ("lists without an item", _percent(found.empty_live), _percent(found.empty)),
        ("degraded lists", _percent(found.degraded_live), _percent(found.degraded)),
        ("latency, median", _ms(found.latency_live.p50_ms), _ms(found.latency.p50_ms)),
        ("latency, p99", _ms(found.latency_live.p99_ms), _ms(found.latency.p99_ms)),
        ("clicks on what was shown", f"{clicked.clicks:,}", f"{_percent(clicked.in_shadow)} in its lists too"),
        ("mean place of the clicks in both", _number(clicked.live_rank), _number(clicked.shadow_rank)),
    ]


def _lasted(span: timedelta) -> str:
    minutes = span / timedelta(minutes=1)
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _percent(value: float) -> str:
    return f"{value:.2%}" if math.isfinite(value) else _UNKNOWN


def _points(value: float) -> str:
    return f"{100 * value:+.2f}"


def _ms(value: float) -> str:
    return f"{value:,.1f} ms" if math.isfinite(value) else _UNKNOWN


def _number(value: float) -> str:
    return f"{value:,.1f}" if math.isfinite(value) else _UNKNOWN
