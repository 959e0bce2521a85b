"""expectations: Great Expectations as the judge: requirements in, verdicts and its own results out; the only place that runs it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations import Expectation as GxExpectation

from infra.contracts.errors import ContractViolation
from validation.check import MAX_EXAMPLES, EachUser, Requirement, Row, Severity, Whole

Document = dict[str, object]
"""What Great Expectations itself says of one validation: configurations, results, statistics; ready for JSON."""

_GX_SEVERITY = {Severity.FAIL: "critical", Severity.WARN: "warning"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one requirement. violations: rows that break it (1 for a figure); rows: at most MAX_EXAMPLES of them."""

    met: bool
    violations: int
    of: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """verdicts: of each check, in the order of its requirements. documents: one a table that was validated."""

    verdicts: dict[str, list[Verdict]]
    documents: tuple[Document, ...]


def judge(
    wanted: Mapping[str, Sequence[Requirement]], *, name: str, users: pd.DataFrame, figures: Mapping[str, float]
) -> Judged:
    """Validate what each check wants. name: of the suite; users: the summary; figures: the one-row table's columns.

    Raises ContractViolation where an expectation could not be evaluated: a check that was not made has not passed.
    """
    context = gx.get_context(mode="ephemeral", project_config=_silent_config())
    source = context.data_sources.add_pandas("summary")
    tables = {"users": users.reset_index(drop=True), "figures": pd.DataFrame([dict(figures)])}
    verdicts: dict[tuple[str, int], Verdict] = {}
    documents: list[Document] = []
    for table_name, kind in (("users", EachUser), ("figures", Whole)):
        asked = {
            (check, at): requirement
            for check, requirements in wanted.items()
            for at, requirement in enumerate(requirements)
            if isinstance(requirement, kind)
        }
        if not asked:
            continue
        table = tables[table_name]
        marked = [_marked(requirement, check, at) for (check, at), requirement in asked.items()]
        suite = gx.ExpectationSuite(name=f"{name}.{table_name}", expectations=marked)
        asset = source.add_dataframe_asset(table_name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
        with _quiet():
            outcome = batch.validate(suite, result_format="SUMMARY")
        documents.append(outcome.to_json_dict())
        for result in outcome.results:
            meta = result.expectation_config.meta
            verdicts[meta["check"], meta["requirement"]] = _verdict(result, table)
    missing = [
        f"{check}[{at}]"
        for check, requirements in wanted.items()
        for at in range(len(requirements))
        if (check, at) not in verdicts
    ]
    if missing:
        raise ContractViolation(f"Great Expectations gave no result for {', '.join(missing)}: they were not checked.")
    ordered = {check: [verdicts[check, at] for at in range(len(found))] for check, found in wanted.items()}
    return Judged(ordered, tuple(documents))


def _marked(requirement: Requirement, check: str, at: int) -> GxExpectation:
    """The expectation with who asked: results come back in another order, and two checks may want the same."""
    meta = {"check": check, "requirement": at, "wanted": requirement.wanted}
    marked: GxExpectation = requirement.expectation.copy(
        update={"meta": meta, "severity": _GX_SEVERITY[requirement.severity]}
    )
    return marked


def _silent_config() -> DataContextConfig:
    """Everything in memory, no progress bars in task logs, nothing sent to anybody."""
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )


def _verdict(outcome: ExpectationValidationResult, table: pd.DataFrame) -> Verdict:
    expectation, result = outcome.expectation_config, outcome.result
    if "unexpected_count" not in result:
        raise ContractViolation(
            f"{expectation.type} of {expectation.kwargs} could not be evaluated: {_first_line(outcome.exception_info)}"
        )
    missing = 0 if outcome.success is False else int(result.get("missing_count") or 0)
    rows = list(result.get("partial_unexpected_index_list") or [])[:MAX_EXAMPLES]
    if missing:  # a null or NaN passes every comparison of values: here it breaks the requirement
        column = expectation.kwargs["column"]
        rows = table.index[table[column].isna()].tolist()[:MAX_EXAMPLES]
    return Verdict(
        met=bool(outcome.success) and not missing,
        violations=int(result["unexpected_count"]) + missing,
        of=int(result["element_count"]),
        rows=tuple(table.loc[row].to_dict() for row in rows),
    )


def _first_line(exception_info: Mapping[str, object] | None) -> str:
    """Its message, which may lie one level down, under the metric that could not be computed."""
    info = dict(exception_info or {})
    for found in (info, *info.values()):
        if isinstance(found, Mapping) and found.get("exception_message"):
            return str(found["exception_message"]).strip().splitlines()[0]
    return "no result and no reason given"


@contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations logs and warns of what it then also returns."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
