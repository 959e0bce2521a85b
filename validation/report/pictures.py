"""pictures: what a snapshot looks like, beside the live one: scores, lengths, overlap, exposure; each drawn and put in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from validation.case import Case
from validation.comparison import Comparison
from validation.lists import Int64s
from validation.report import plots
from validation.scan import PAGE, TOP, evenly_spaced_scores, score_values

BINS = 48
_CURVE_POINTS = 120

Float64s = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing with its legend and the numbers under it; `plot` is None where `said` explains why there is none."""

    title: str
    said: str
    plot: Markup | None = None
    numbers: dict[str, str] = field(default_factory=dict)
    legend: tuple[tuple[str, str], ...] = ()


def pictures(case: Case) -> list[Picture]:
    """All of them, in the page's order."""
    live = case.comparison
    return [scores(case, live), overlap(case, live), lengths(case), exposure(case)]


def scores(case: Case, live: Comparison | None) -> Picture:
    """How often stored scores of each size occur; the outermost 0.1 % at each end are left out."""
    mine = case.scan.score_counts
    theirs = live.live_score_counts if live is not None else None
    samples = [evenly_spaced_scores(mine, n=2000)]
    if theirs is not None:
        samples.append(evenly_spaced_scores(theirs, n=2000))
    values = np.concatenate(samples)
    title = "Stored scores"
    if not len(samples[0]):
        return Picture(title, "There is no finite score.")
    low, high = float(np.quantile(values, 0.001)), float(np.quantile(values, 0.999))
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    numbers = {"median": f"{np.median(samples[0]):.4g}", "1 % to 99 %": _span(samples[0])}
    legend: list[tuple[str, str]] = [("bar", str(case.version.version))]
    if live is not None and theirs is not None and len(samples[1]):
        numbers |= {
            f"median of {case.live}": f"{np.median(samples[1]):.4g}",
            f"1 % to 99 % of {case.live}": _span(samples[1]),
            "PSI": f"{live.score_psi:.4f}",
        }
        legend.append(("other", f"{case.live}, live"))
    plot = plots.histogram(
        edges,
        _shares(mine, edges),
        other=_shares(theirs, edges) if theirs is not None else None,
        x_label="stored score",
        y_label="share of all scores",
        title="Distribution of the stored scores",
    )
    return Picture(title, "All scores of all lists.", plot, numbers, tuple(legend))


def overlap(case: Case, live: Comparison | None) -> Picture:
    """How much of the first TOP items users keep from the live snapshot."""
    title = "Overlap with the live lists"
    if live is None:
        return Picture(title, f"Not compared: {case.no_comparison}.")
    if not len(live.overlaps):
        return Picture(title, f"No user of {case.live} is in this snapshot.")
    edges = np.linspace(0.0, 1.0, 41)
    counts, _ = np.histogram(live.overlaps, edges)
    mean = float(live.overlaps.mean())
    numbers = {
        "mean": f"{mean:.3f}",
        "median": f"{np.median(live.overlaps):.3f}",
        "users compared": f"{len(live.overlaps):,}",
        "live users in common": f"{live.common_users_fraction:.1%}",
    }
    plot = plots.histogram(
        edges,
        counts / counts.sum(),
        marks=[(mean, f"mean {mean:.3f}")],
        x_label=f"Jaccard of the first {TOP} items",
        y_label="share of users",
        title="Overlap of users' lists with the live snapshot's",
    )
    built = f" Built differently: {'; '.join(live.differences)}." if live.differences else ""
    return Picture(title, f"Of the first {TOP} items, by item id, with {case.live}.{built}", plot, numbers)


def lengths(case: Case) -> Picture:
    """How long lists are, users without one counting 0."""
    title = "List lengths"
    users = case.users
    found = users["length"].to_numpy(np.int64)
    if not len(found):
        return Picture(title, "There is no user.")
    wanted = users["wanted_length"].to_numpy(np.int64)
    numbers = {
        "shortest": f"{found.min():,}",
        "longest": f"{found.max():,}",
        "not as wanted": f"{np.count_nonzero((found != wanted) & (users['n_lists'] > 0)):,}",
        "users without a list": f"{np.count_nonzero(users['n_lists'] == 0):,}",
    }
    k = case.manifest.candidates_per_user
    said = f"Items a user; wanted is min({k:,}, what the user may be shown)."
    edges = _whole_edges(int(found.min()), int(found.max()))
    counts, _ = np.histogram(found, edges)
    plot = plots.histogram(
        edges,
        counts / counts.sum(),
        x_label="items in a list",
        y_label="share of users",
        title="Lengths of the lists",
        whole=True,
    )
    return Picture(title, said, plot, numbers)


def exposure(case: Case) -> Picture:
    """How unevenly the catalogue is shown: the share of all places that the most shown items take."""
    found = case.scan
    title = "Exposure of the catalogue"
    if not len(found.exposure) or not found.exposure.sum():
        return Picture(title, "No item is in any list.")
    lines = []
    numbers: dict[str, str] = {}
    for kind, name, counts in (("bar", "lists", found.exposure), ("other", "first page", found.first_page)):
        shares = concentration(counts)
        places = np.linspace(0, len(shares) - 1, min(_CURVE_POINTS, len(shares))).astype(np.int64)
        lines.append((kind, places / max(len(shares) - 1, 1), shares[places]))
        numbers |= {
            f"items in {name}": f"{np.count_nonzero(counts) / len(counts):.1%}",
            f"Gini, {name}": f"{gini(counts):.3f}",
            f"top 1 % of items, {name}": f"{shares[max(1, round(len(counts) * 0.01))]:.1%}",
        }
    plot = plots.curves(
        lines,
        x_label="share of the catalogue, most shown first",
        y_label="share of all places",
        title="Concentration of exposure",
        diagonal=True,
    )
    legend = (("bar", "whole lists"), ("other", f"first {PAGE} of each list"))
    return Picture(title, "The dashed line is a catalogue shown evenly.", plot, numbers, legend)


def figures_of(case: Case) -> dict[str, float]:
    """What the pictures say, for machines."""
    found, lengths_found = case.scan, case.users["length"].to_numpy(np.float64)
    sample = evenly_spaced_scores(found.score_counts, n=2000)
    return {
        "score_median": float(np.median(sample)) if len(sample) else float("nan"),
        "length_min": float(lengths_found.min(initial=np.inf)),
        "length_max": float(lengths_found.max(initial=0)),
        "exposure_gini": gini(found.exposure),
        "first_page_gini": gini(found.first_page),
        "catalogue_in_lists_fraction": float(np.count_nonzero(found.exposure) / max(len(found.exposure), 1)),
        "catalogue_on_first_pages_fraction": float(np.count_nonzero(found.first_page) / max(len(found.first_page), 1)),
    }


def concentration(counts: Int64s) -> Float64s:
    """float64 [n + 1]: the share of all that the first m items have, m = 0..n, most frequent first; zeros where there is none."""
    falling = np.sort(counts)[::-1].astype(np.float64)
    total = falling.sum()
    shares: Float64s = np.concatenate([[0.0], np.cumsum(falling)]) / (total or 1.0)
    return shares


def gini(counts: Int64s) -> float:
    """0: every item equally often; towards 1: one item has it all. Twice the area between the curve and the diagonal."""
    shares = concentration(counts)
    return float(max(0.0, 2.0 * (np.trapezoid(shares, dx=1.0 / max(len(counts), 1)) - 0.5))) if shares[-1] else 0.0


def _shares(counts: Int64s, edges: Float64s) -> Float64s:
    values = score_values()
    usable = np.isfinite(values) & (counts > 0)
    found, _ = np.histogram(values[usable], edges, weights=counts[usable].astype(np.float64))
    shares: Float64s = found / max(1.0, float(counts[usable].sum()))
    return shares


def _span(sample: Float64s) -> str:
    low, high = np.quantile(sample, [0.01, 0.99])
    return f"{low:.4g} to {high:.4g}"


def _whole_edges(low: int, high: int) -> Float64s:
    """Edges half way between whole numbers, at most about BINS bins."""
    if high - low < 4:
        low, high = max(0, low - 2), high + 2
    width = max(1, -(-(high - low + 1) // BINS))
    edges: Float64s = np.arange(low, high + width + 1, width, dtype=np.float64) - 0.5
    return edges
