"""plots: the benchmarks' figures as SVG files, the same bytes for the same figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tests.bench.targets import TARGETS

Points = dict[tuple[str, int], dict[str, dict[str, float]]]
"""(model and rows, callers) -> mode -> per_s, p99_ms and, of what is not alone, ratio."""

METRICS = ("recall_at_20", "ndcg_at_20", "recall_at_1000")

_KEPT, _BROKEN, _QUIET, _TRUTH = "#2f7d5b", "#b3402a", "#8fa3ad", "#c9a227"
_COLOURS = {"oracle": _TRUTH, "popularity": _QUIET}


class Run(Protocol):
    """What a plot needs of a benchmark."""

    @property
    def figures(self) -> dict[str, float]: ...

    @property
    def controls(self) -> dict[str, float]: ...


def draw(runs: Mapping[str, Run], folder: Path) -> dict[str, str]:
    """Write what there are figures for; what each shows -> its file's name. Plots of an earlier run are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.svg"):
        file.unlink()
    drawn = {}
    makers = {"promises": _promises(runs)} | {name: _BY_BENCHMARK[name](run) for name, run in runs.items()}
    for name, figure in makers.items():
        if figure is not None:
            drawn[name] = f"{name}.svg"
            with matplotlib.rc_context(
                {"svg.hashsalt": "headgate", "svg.fonttype": "none", "font.family": "sans-serif"}
            ):
                figure.savefig(folder / drawn[name], metadata={"Date": None}, bbox_inches="tight", facecolor="white")
    return drawn


def methods(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """(data, method) in the order measured, from names such as gowalla_spectral_128_recall_at_20."""
    found: dict[tuple[str, str], None] = {}
    for name in figures:
        for metric in METRICS:
            if name.endswith(f"_{metric}"):
                data, _, method = name[: -len(metric) - 1].partition("_")
                found[(data, method)] = None
    return list(found)


def curve_points(controls: Mapping[str, float]) -> tuple[Points, dict[str, float]]:
    """The points of the curves of concurrency, in the order measured, and the controls that are none."""
    points: Points = {}
    others: dict[str, float] = {}
    for name, value in controls.items():
        found = re.fullmatch(r"curve_(\w+_\d+)_(\d+)_([a-z]+)_(per_s|p99_ms|ratio)", name)
        if found is None:
            others[name] = value
        else:
            curve, callers, mode, what = found.groups()
            points.setdefault((curve, int(callers)), {}).setdefault(mode, {})[what] = value
    return points, others


def _figure(*, width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _promises(runs: Mapping[str, Run]) -> Figure | None:
    """How much of each limit is used."""
    rows = [
        (target, runs[target.benchmark].figures[target.figure])
        for target in reversed(TARGETS)
        if target.benchmark in runs and target.figure in runs[target.benchmark].figures
    ]
    if not rows:
        return None
    figure = _figure(width=8, height=0.9 + 0.5 * len(rows))
    axes = figure.subplots()
    used = [100 * target.used_fraction(value) for target, value in rows]
    colours = [_KEPT if target.reached(value) else _BROKEN for target, value in rows]
    bars = axes.barh([target.figure for target, _ in rows], used, color=colours, height=0.6)
    axes.bar_label(
        bars,
        [f"{value:g} ({target.bound} {target.at:g})" for target, value in rows],
        padding=4,
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
    axes.axvline(100, color="black", linewidth=1, linestyle="--")
    axes.set_xlim(0, max(150, 1.45 * max(used)))
    axes.set_xlabel("percent of the limit that is used (dashed: the limit)")
    _bare(axes)
    return figure


def _stacked_seconds(values: Mapping[str, float], *, unit: str) -> Figure | None:
    """One bar a phase, in the order of the run."""
    if not values:
        return None
    figure = _figure(width=8, height=0.9 + 0.32 * len(values))
    axes = figure.subplots()
    names = list(values)[::-1]
    bars = axes.barh(names, [values[name] for name in names], color=_QUIET, height=0.65)
    axes.bar_label(
        bars,
        [f"{values[name]:,.0f}" if values[name] >= 1000 else f"{values[name]:.3g}" for name in names],
        padding=3,
        fontsize=8,
    )
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    _bare(axes)
    return figure


def _demo(run: Run) -> Figure | None:
    phases = {name[:-2]: value for name, value in run.controls.items() if name.endswith("_s")}
    return _stacked_seconds(phases, unit="seconds")


def _serve(run: Run) -> Figure | None:
    start, end = "stage_", "_ms_p50"
    stages = {
        name[len(start) : -len(end)]: value
        for name, value in run.controls.items()
        if name.startswith(start) and name.endswith(end)
    }
    return _stacked_seconds(stages, unit="milliseconds of a request's stage at half load, median")


def _cascade(run: Run) -> Figure | None:
    """One panel a model and size of request: throughput against callers, by mode, over that of calls by themselves."""
    points, _ = curve_points(run.controls)
    curves = list(dict.fromkeys(curve for curve, _ in points))
    if not curves:
        return None
    columns = min(3, len(curves))
    figure = _figure(width=9, height=2.6 * -(-len(curves) // columns))
    panels = np.atleast_1d(figure.subplots(-(-len(curves) // columns), columns)).ravel()
    for curve, axes in zip(curves, panels, strict=False):
        callers = [count for name, count in points if name == curve]
        for mode, colour in (("shared", _KEPT), ("dispatcher", _BROKEN)):
            axes.plot(
                callers,
                [points[curve, count][mode]["ratio"] for count in callers],
                color=colour,
                marker="o",
                label=mode,
            )
        axes.axhline(1, color="black", linewidth=1, linestyle="--")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(callers, [str(count) for count in callers])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(f"{curve.replace('_', ', ')} rows", fontsize=9)
        axes.set_xlabel("callers", fontsize=8)
        _bare(axes)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("throughput / alone", fontsize=8)
    panels[0].legend(fontsize=8, frameon=False)
    return figure


def _snapshots(run: Run) -> Figure | None:
    """Seconds until what an operator asked for is so."""
    names = {
        "readers on the new version, p99": ("readers_switch_ms_p99", 1000),
        "rollback by REST, p95": ("rollback_rest_s_p95", 1),
    }
    names["rollback by REST in a build, p95"] = ("rollback_rest_mid_build_s_p95", 1)
    taken = {label: run.figures[name] / per_s for label, (name, per_s) in names.items() if name in run.figures}
    return _stacked_seconds(taken, unit="seconds")


def _nearline(run: Run) -> Figure | None:
    """Events a second: appended, counted by one worker and by two, on one Redis and on a cluster of two nodes."""
    names = {
        "appended": "append_events_per_s",
        "counted by one worker": "one_worker_events_per_s",
        "by two": "two_workers_events_per_s",
        "by one, two Redis nodes": "one_worker_two_shards_events_per_s",
        "by two, two Redis nodes": "two_workers_two_shards_events_per_s",
    }
    rates = {label: run.controls[name] for label, name in names.items() if name in run.controls}
    return _stacked_seconds(rates, unit="events a second")


def _batch(run: Run) -> Figure | None:
    names = {"FAISS alone": "faiss_direct_users_per_s", "Spark to Parquet": "spark_parquet_users_per_s"}
    rates = {label: run.controls[name] for label, name in names.items() if name in run.controls}
    return _stacked_seconds(rates, unit="users a second")


def _quality(run: Run) -> Figure | None:
    """One panel a data set and depth, one bar a method."""
    data_sets = list(dict.fromkeys(data for data, _ in methods(run.figures)))
    if not data_sets:
        return None
    figure = _figure(width=9, height=0.6 + 2.0 * len(data_sets))
    panels = np.atleast_2d(figure.subplots(len(data_sets), len(METRICS), sharey="row"))
    for data, row in zip(data_sets, panels, strict=True):
        names = [method for found, method in methods(run.figures) if found == data][::-1]
        for metric, axes in zip(METRICS, row, strict=True):
            values = [run.figures.get(f"{data}_{name}_{metric}", 0.0) for name in names]
            labels = [name.replace("_", " ") for name in names]
            bars = axes.barh(labels, values, color=[_COLOURS.get(name, _KEPT) for name in names], height=0.65)
            axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, fontsize=8)
            axes.margins(x=0.25)
            axes.set_title(f"{data}: {metric.replace('_at_', '@')}", fontsize=9)
            _bare(axes)
    return figure


def _bare(axes: matplotlib.axes.Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)


_BY_BENCHMARK = {
    "demo": _demo,
    "batch": _batch,
    "serve": _serve,
    "cascade": _cascade,
    "snapshots": _snapshots,
    "nearline": _nearline,
    "quality": _quality,
}
