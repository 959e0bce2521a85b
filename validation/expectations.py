"""expectations: Great Expectations as the judge: requirements in, violations out; the only place that runs it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations import Expectation as GxExpectation

from infra.contracts.errors import ContractViolation
from validation.check import MAX_EXAMPLES, EachUser, Requirement, Row, Whole


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one requirement. violations: rows that break it (1 for a figure); rows: at most MAX_EXAMPLES of them."""

    met: bool
    violations: int
    of: int
    rows: tuple[Row, ...]


def judge(requirements: Sequence[Requirement], *, users: pd.DataFrame, figures: Mapping[str, float]) -> list[Verdict]:
    """The verdict on each requirement, in order. users: the summary; figures: the one-row table's columns.

    Raises ContractViolation where an expectation could not be evaluated: a check that was not made has not passed.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("summary")
    tables = {"users": users.reset_index(drop=True), "figures": pd.DataFrame([dict(figures)])}
    verdicts: dict[int, Verdict] = {}
    for name, kind in (("users", EachUser), ("figures", Whole)):
        wanted = [at for at, requirement in enumerate(requirements) if isinstance(requirement, kind)]
        if not wanted:
            continue
        table = tables[name]
        batch = (
            source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
        )
        for at in wanted:
            verdicts[at] = _verdict(batch, requirements[at].expectation, table)
    return [verdicts[at] for at in range(len(requirements))]


def _verdict(batch: gx.datasource.fluent.interfaces.Batch, expectation: GxExpectation, table: pd.DataFrame) -> Verdict:
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        outcome = batch.validate(expectation, result_format="SUMMARY")
    result = outcome.result
    if outcome.exception_info and outcome.exception_info.get("raised_exception"):
        raise ContractViolation(f"{expectation} could not be evaluated: {outcome.exception_info['exception_message']}")
    if "unexpected_count" not in result:
        raise ContractViolation(f"{expectation} gave no count: {result or outcome.exception_info}")
    missing = 0 if outcome.success is False else int(result.get("missing_count") or 0)
    rows = list(result.get("partial_unexpected_index_list") or [])[:MAX_EXAMPLES]
    if missing:  # a null or NaN passes every comparison of values: here it breaks the requirement
        column = expectation.column
        rows = table.index[table[column].isna()].tolist()[:MAX_EXAMPLES]
    return Verdict(
        met=bool(outcome.success) and not missing,
        violations=int(result["unexpected_count"]) + missing,
        of=int(result["element_count"]),
        rows=tuple(table.loc[row].to_dict() for row in rows),
    )


def _quiet() -> _Silence:
    return _Silence()


class _Silence:
    """Great Expectations logs what it then also returns."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("great_expectations")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
