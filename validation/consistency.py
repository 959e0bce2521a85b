"""consistency: python -m validation.consistency: judges a run of answers made again: one feature value that differs fails it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import great_expectations as gx
import great_expectations.expectations as gxe
import jinja2
import orjson
import pandas as pd
import typer

from infra.catalog.applications import application as application_spec
from infra.config import console
from infra.config.settings import settings
from infra.contracts.errors import ContractViolation, ValidationRefused
from infra.nearline.consistency_rows import NO_RUN, read_rows, runs_of
from infra.snapshots.pages import style
from infra.snapshots.storage import Storage
from validation.check import EachUser, Requirement, Row, Severity, Whole
from validation.expectations import Document, Verdict, judge

_REPORT = Path(__file__).parent / "report"
_CHECK = "consistency"
_SUMMED = ("values", "mismatches", "as_of_values", "as_of_mismatches")

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement and how it ended: passed, warned or failed."""

    wanted: str
    status: str
    seen: str
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Consistency:
    """The judgement on one run. figures: of all its answers; documents: Great Expectations' own results."""

    run: str
    lines: tuple[Line, ...]
    figures: dict[str, float]
    documents: tuple[Document, ...]

    @property
    def refused(self) -> bool:
        """Whether what was served cannot be made again."""
        return any(line.status == "failed" for line in self.lines)


@app.command()
def main(
    *,
    application: Annotated[str, typer.Option(help="whose answers")] = "ranking",
    run: Annotated[
        str, typer.Option(help="as python -m spark_jobs.training.consistency named it; default: the newest")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="nothing for people, only the JSON object on stdout")] = False,
) -> None:
    """Judge a run and file the report beside its rows. Exit code 1 where anything differs from what was served."""
    started = time.monotonic()
    name = application_spec(application).name
    if run == NO_RUN:
        console.say(f"{name}: nothing was answered, so there is nothing to judge")
        console.result({"application": name, "run": run, "verdict": "nothing to judge"})
        return
    runs = runs_of(settings().store, name)
    rows = read_rows(runs, run)
    found = judge_answers(rows.to_pandas(), run=rows.schema.metadata[b"run"].decode())
    page = file_judgement(runs, found, application=name)
    if not json:
        for line in found.lines:
            console.say(f"{line.status:<8}{line.wanted}: {line.seen}")
            for example in line.examples:
                console.say(f"{'':<8}{example}")
        console.say(f"report: {page}")
    fields = {"application": name, "run": found.run, "verdict": _verdict(found), **found.figures, "report": page}
    console.result(fields | {"seconds": round(time.monotonic() - started, 2)})
    if found.refused:
        told = " | ".join(f"{line.wanted}: {line.seen}" for line in found.lines if line.status == "failed")
        raise ValidationRefused(
            f"{name}: what was served cannot be made again: {told}.",
            mend=f"Look at {page}, then at one answer: python -m spark_jobs.training.replay REQUEST_ID",
        )


def judge_answers(answers: pd.DataFrame, *, run: str) -> Consistency:
    """answers: columns as in AnswerRow, one row an answer, at least one."""
    figures = _figures(answers)
    wanted = _requirements(figures)
    judged = judge({_CHECK: wanted}, name=f"{_CHECK}.{run}", users=answers, figures=figures)
    lines = [_line(*pair) for pair in zip(wanted, judged.verdicts[_CHECK], strict=True)]
    return Consistency(run, tuple(lines), figures, judged.documents)


def file_judgement(runs: Storage, found: Consistency, *, application: str) -> str:
    """Store page, record and Great Expectations' results beside the rows; judged again, they are replaced. Returns the page."""
    record = {
        "application": application,
        "run": found.run,
        "verdict": _verdict(found),
        "figures": found.figures,
        "lines": [
            {"status": one.status, "wanted": one.wanted, "seen": one.seen, "examples": one.examples}
            for one in found.lines
        ],
    }
    expectations = {"great_expectations": gx.__version__, "validations": found.documents}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_REPORT), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("consistency.html").render(
        style=style(_REPORT / "page.css"), found=found, application=application, verdict=_verdict(found)
    )
    runs.write(f"{found.run}/great-expectations.json", orjson.dumps(expectations, option=orjson.OPT_NON_STR_KEYS))
    runs.write(f"{found.run}/report.json", orjson.dumps(record, option=orjson.OPT_INDENT_2))
    runs.write(f"{found.run}/report.html", page.encode())
    return runs.uri(f"{found.run}/report.html")


def _figures(answers: pd.DataFrame) -> dict[str, float]:
    if answers.empty:
        raise ContractViolation("A run without answers cannot be judged.")
    summed = {name: float(answers[name].sum()) for name in _SUMMED}
    return {
        "answers": float(len(answers)),
        "replayed": float(answers["replayed"].sum()),
        **summed,
        "answers_that_differ": float((answers["differences"] > 0).sum()),
        "as_of_answers_that_differ": float(answers["as_of_differs"].sum()),
        "as_of_mismatch_rate": summed["as_of_mismatches"] / max(1.0, summed["as_of_values"]),
    }


def _requirements(figures: dict[str, float]) -> Sequence[Requirement]:
    return (
        EachUser(
            gxe.ExpectColumnValuesToBeBetween(column="mismatches", max_value=0),
            Severity.FAIL,
            wanted="every feature value as it was served, to the bit",
            fault="have feature values that differ",
            example=_example,
        ),
        EachUser(
            gxe.ExpectColumnValuesToBeBetween(column="differences", max_value=0),
            Severity.FAIL,
            wanted="every list as it was served: items, scores, order",
            fault="differ in anything",
            example=_example,
        ),
        EachUser(
            gxe.ExpectColumnValuesToBeInSet(column="replayed", value_set=[True]),
            Severity.WARN,
            wanted="every answer can be made again",
            fault="could not be made again",
            example=lambda row: f"{row['request_id']}: {row['because']}",
        ),
        EachUser(
            gxe.ExpectColumnValuesToBeInSet(column="is_lost", value_set=[False]),
            Severity.FAIL,
            wanted="an answer is not made again only where its snapshot was collected or its request too long to log",
            fault="are lost for another reason",
            example=lambda row: f"{row['request_id']}: {row['because']}",
        ),
        Whole(
            gxe.ExpectColumnValuesToBeBetween(column="replayed", min_value=1),
            Severity.FAIL,
            wanted="at least one answer was made again",
            seen=f"{figures['replayed']:,.0f} of {figures['answers']:,.0f}",
        ),
    )


def _example(row: Row) -> str:
    return f"{row['request_id']} of user {row['user_id']!r}: {row['kinds']}: {row['example']}"


def _line(requirement: Requirement, verdict: Verdict) -> Line:
    status = "passed" if verdict.met else ("failed" if requirement.severity is Severity.FAIL else "warned")
    if isinstance(requirement, Whole):
        return Line(requirement.wanted, status, requirement.seen, ())
    if verdict.met:
        return Line(requirement.wanted, status, f"all {verdict.of:,} answers", ())
    examples = tuple(requirement.example(row) for row in verdict.rows)
    return Line(
        requirement.wanted, status, f"{verdict.violations:,} of {verdict.of:,} answers {requirement.fault}", examples
    )


def _verdict(found: Consistency) -> str:
    return "refused" if found.refused else "passed"


if __name__ == "__main__":
    console.run(app)
