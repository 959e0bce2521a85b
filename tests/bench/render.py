"""render: docs/benchmarks.md and its plots from .bench/*.json: `python -m tests.bench.render [--bench FOLDER --docs FOLDER]`.

A run that was disturbed (`valid` is false) is named on the page, its figures are not published.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from infra.config import console
from infra.config.settings import CHECKOUT
from tests.bench import plots
from tests.bench.report import BENCH_FOLDER, FOREIGN_LIMIT_CORES, Machine
from tests.bench.targets import ABOUT, COMMANDS, TARGETS

HEAD = """# Benchmarks

`make bench` measures and writes this page; `make bench-quality` measures what retrieval finds. A run with times during which
other processes used more than {limit} cores is not published.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One benchmark's file."""

    name: str
    commit: str
    date: str
    machine: Machine
    foreign_cpu_cores: float
    valid: bool
    figures: dict[str, float]
    controls: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file as it was written by Report."""
        fields = json.loads(path.read_text())
        return cls(**(fields | {"machine": Machine(**fields["machine"])}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=BENCH_FOLDER)
    parser.add_argument("--docs", type=Path, default=CHECKOUT / "docs")
    chosen = parser.parse_args()
    measured = read(chosen.bench)
    drawn = plots.draw({run.name: run for run in published(measured)}, chosen.docs / "benchmarks")
    page = chosen.docs / "benchmarks.md"
    page.write_text(render(measured, drawn))
    refused = [run.name for run in measured.values() if not run.valid]
    console.result({"page": str(page), "plots": drawn, "published": len(measured) - len(refused), "refused": refused})


def read(folder: Path) -> dict[str, Measured]:
    """The benchmarks that have a file, in the order of the page."""
    return {name: Measured.read(folder / f"{name}.json") for name in COMMANDS if (folder / f"{name}.json").exists()}


def published(measured: dict[str, Measured]) -> list[Measured]:
    """Those that nothing disturbed."""
    return [run for run in measured.values() if run.valid]


def render(measured: dict[str, Measured], drawn: dict[str, str]) -> str:
    """The page. drawn: what a plot shows -> its file's name."""
    parts = [HEAD.format(limit=FOREIGN_LIMIT_CORES), _promises(measured)]
    if "promises" in drawn:
        parts.append(_picture("promises", drawn))
    for name, command in COMMANDS.items():
        parts.append(_section(name, command, measured.get(name), drawn))
    return "\n".join(parts)


def _promises(measured: dict[str, Measured]) -> str:
    lines = ["| figure | what it is | promised | measured | kept |", "|---|---|---|---|---|"]
    for target in TARGETS:
        run = measured.get(target.benchmark)
        if run is None or target.figure not in run.figures:
            seen, kept = "not measured", ""
        elif not run.valid:
            seen, kept = "disturbed, to be repeated", ""
        else:
            value = run.figures[target.figure]
            seen, kept = f"**{number(value)}**", "yes" if target.reached(value) else "**no**"
        lines.append(f"| `{target.figure}` | {target.says} | {target.bound} {number(target.at)} | {seen} | {kept} |")
    return "\n".join([*lines, ""])


def _section(name: str, command: str, run: Measured | None, drawn: dict[str, str]) -> str:
    lines = [f"## {name}", "", ABOUT[name], ""]
    if run is None:
        return "\n".join([*lines, f"Not measured. Run: `{command}`", ""])
    machine = f"{run.machine.cpus} CPUs ({run.machine.model}), {number(run.machine.mem_gb)} GB"
    lines += [f"`{command}` at {run.commit}, {run.date}, on {machine}; others used {run.foreign_cpu_cores} cores.", ""]
    if not run.valid:
        said = f"other processes used {run.foreign_cpu_cores} cores, more than {FOREIGN_LIMIT_CORES}"
        return "\n".join([*lines, f"**Not published: {said}.** Repeat it on a quiet machine.", ""])
    if name in drawn:
        lines.append(_picture(name, drawn))
    lines += _quality_table(run.figures) if name == "quality" else _table("figure", run.figures)
    points, controls = plots.curve_points(run.controls)
    if points:
        lines += ["", *_curve_table(points)]
    if controls:
        lines += ["", *_table("control", controls)]
    return "\n".join([*lines, ""])


def _table(what: str, values: dict[str, float]) -> list[str]:
    rows = [f"| `{name}` | {number(value)} |" for name, value in values.items()]
    return [f"| {what} | value |", "|---|---:|", *rows]


def _quality_table(figures: dict[str, float]) -> list[str]:
    """One row a data set and method."""
    lines = ["| data | method | Recall@20 | NDCG@20 | Recall@1000 |", "|---|---|---:|---:|---:|"]
    for data, method in plots.methods(figures):
        values = [figures.get(f"{data}_{method}_{metric}", float("nan")) for metric in plots.METRICS]
        lines.append(
            f"| {data} | {method.replace('_', ' ')} | " + " | ".join(f"{value:.4f}" for value in values) + " |"
        )
    return lines


def _curve_table(points: plots.Points) -> list[str]:
    """One row a model, size of request and number of callers; requests a second and, in brackets, p99 in ms."""
    modes = list(dict.fromkeys(mode for point in points.values() for mode in point))
    lines = [f"| rows | callers | {' | '.join(modes)} |", "|---|---:|" + "---:|" * len(modes)]
    for (curve, callers), point in points.items():
        cells = [f"{number(point[mode]['per_s'])}/s ({number(point[mode]['p99_ms'])} ms)" for mode in modes]
        lines.append(f"| {curve.replace('_', ' ')} | {callers} | {' | '.join(cells)} |")
    return lines


def _picture(name: str, drawn: dict[str, str]) -> str:
    return f"![{name}](benchmarks/{drawn[name]})\n"


def number(value: float) -> str:
    """As few digits as say something."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


if __name__ == "__main__":
    main()
