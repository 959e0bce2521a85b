"""page: the judgement as one HTML file that needs no network and runs no script."""

from __future__ import annotations

from pathlib import Path

import jinja2

from infra.contracts.snapshots import Manifest
from infra.snapshots.pages import style
from validation.case import Case
from validation.check import Finding, Status
from validation.report.filing import Ruling
from validation.report.pictures import Picture, pictures
from validation.report.samples import Sample, samples
from validation.report.shown import shown

_FOLDER = Path(__file__).parent
_ORDER = (Status.FAILED, Status.WARNED, Status.PASSED, Status.SKIPPED)
_TELLS = 400
"""Characters of a finding's words; an id of 256 bytes stays whole."""


def render(ruling: Ruling, case: Case | None) -> bytes:
    """case: None where the manifest cannot be read; lists are drawn only where the judgement is complete."""
    drawn: list[Picture] = []
    people: list[Sample] = []
    if case is not None and ruling.judgement.complete:
        drawn, people = pictures(case), samples(case)
    manifest = case.manifest if case is not None else None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = lambda text: shown(text, limit=_TELLS)
    html = environment.get_template("page.html").render(
        style=style(_FOLDER / "page.css"),
        ruling=ruling,
        findings=sorted(ruling.judgement.findings, key=lambda finding: _ORDER.index(finding.status)),
        pictures=drawn,
        people=people,
        metrics=metric_table(manifest) if manifest else None,
        facts=manifest_facts(manifest) if manifest else {},
        parts=manifest.parts if manifest else {},
        manifest=manifest,
        headline=headline(ruling),
    )
    return html.encode()


def headline(ruling: Ruling) -> str:
    """The verdict in a sentence."""
    failed, warned = ruling.judgement.of(Status.FAILED), ruling.judgement.of(Status.WARNED)
    if failed:
        return f"Refused: {_named(failed)}. What is live stays live."
    if warned:
        return f"Passed, with {len(warned)} warning{'s' if len(warned) > 1 else ''}: {_named(warned)}."
    return "Passed."


def _named(findings: list[Finding]) -> str:
    return ", ".join(finding.check for finding in findings)


def metric_table(manifest: Manifest) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The ranker's offline figures: the metrics' names, and for each scorer its row of them."""
    metrics = manifest.ranker.metrics
    names = sorted({name for row in metrics.values() for name in row})
    rows = [(scorer, [_figure(row[name]) if name in row else "-" for name in names]) for scorer, row in metrics.items()]
    return names, rows


def _figure(value: float) -> str:
    """Counts whole, shares to four places."""
    return f"{value:,.0f}" if value > 1 and float(value).is_integer() else f"{value:.4f}"


def manifest_facts(manifest: Manifest) -> dict[str, str]:
    """What an operator asks first."""
    return {
        "created": f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "dataset": manifest.dataset,
        **{name.replace("_", " "): f"{count:,}" for name, count in manifest.counts.items()},
        "embedder": f"{manifest.embedder}, {manifest.dim} dimensions",
        "candidates a user": f"{manifest.candidates_per_user:,}"
        + (" (consumed items included)" if manifest.include_seen else ""),
        "score map": f"softplus(inner product / {manifest.score_scale:.4g})",
        "ranker": f"{manifest.ranker.trees} trees over {len(manifest.ranker.feature_order)} features",
        "trained on": manifest.ranker.trained_on,
        "definition": manifest.definition_hash,
        "built at generation": f"{manifest.generation_at_start}",
        "digest": manifest.digest,
    }
