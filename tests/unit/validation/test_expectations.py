"""Great Expectations decides: what it counts, what it cannot evaluate, and what it leaves as its own result."""

from __future__ import annotations

import math

import great_expectations.expectations as gxe
import orjson
import pandas as pd
import pytest

from infra.contracts.errors import ContractViolation
from validation.check import EachUser, Requirement, Severity, Whole
from validation.expectations import judge

USERS = pd.DataFrame({"user_index": range(20), "n": [0] * 18 + [1, 2], "value": [0.5] * 19 + [math.nan]})


def at_most(column: str, limit: float, severity: Severity = Severity.FAIL) -> EachUser:
    return EachUser(
        gxe.ExpectColumnValuesToBeBetween(column=column, max_value=limit),
        severity,
        wanted=f"{column} at most {limit:g}",
        fault="have too much",
        example=lambda row: str(row["user_index"]),
    )


def figure_at_most(column: str, limit: float) -> Whole:
    expectation = gxe.ExpectColumnValuesToBeBetween(column=column, max_value=limit)
    return Whole(expectation, Severity.FAIL, wanted="little", seen="much")


def test_rows_that_break_a_requirement_are_counted_and_given() -> None:
    (verdict,) = judge({"a": [at_most("n", 0)]}, name="suite", users=USERS, figures={}).verdicts["a"]
    assert (verdict.met, verdict.violations, verdict.of) == (False, 2, 20)
    assert [row["user_index"] for row in verdict.rows] == [18, 19]


def test_a_missing_value_breaks_a_requirement_though_it_passes_every_comparison() -> None:
    (verdict,) = judge({"a": [at_most("value", 1)]}, name="suite", users=USERS, figures={}).verdicts["a"]
    assert (verdict.met, verdict.violations) == (False, 1)
    assert verdict.rows[0]["user_index"] == 19


def test_a_figure_that_is_no_number_breaks_its_requirement() -> None:
    judged = judge({"a": [figure_at_most("loss", 1.0)]}, name="suite", users=USERS, figures={"loss": math.nan})
    assert not judged.verdicts["a"][0].met


def test_verdicts_come_back_to_the_check_that_asked_in_its_own_order() -> None:
    wanted: dict[str, list[Requirement]] = {
        "a": [at_most("n", 2), figure_at_most("loss", 0.1), at_most("n", 1)],
        "b": [at_most("n", 2)],
    }
    verdicts = judge(wanted, name="suite", users=USERS, figures={"loss": 0.5}).verdicts
    assert [verdict.met for verdict in verdicts["a"]] == [True, False, False]
    assert [verdict.met for verdict in verdicts["b"]] == [True]


def test_an_expectation_that_cannot_be_evaluated_is_an_error_and_never_a_pass() -> None:
    with pytest.raises(ContractViolation, match='could not be evaluated: .*"nowhere".* does not exist'):
        judge({"a": [at_most("nowhere", 0)]}, name="suite", users=USERS, figures={})


def test_a_table_without_rows_breaks_nothing() -> None:
    (verdict,) = judge({"a": [at_most("n", 0)]}, name="suite", users=USERS[:0], figures={}).verdicts["a"]
    assert (verdict.met, verdict.of) == (True, 0)


def test_its_own_result_says_what_was_expected_by_whom_how_severely_and_how_it_ended() -> None:
    wanted: dict[str, list[Requirement]] = {
        "a": [at_most("n", 0)],
        "b": [at_most("value", 1, Severity.WARN), figure_at_most("loss", 1)],
    }
    documents = judge(wanted, name="suite", users=USERS, figures={"loss": 0.5}).documents
    read = orjson.loads(orjson.dumps(documents))
    assert [document["suite_name"] for document in read] == ["suite.users", "suite.figures"]
    results = {
        (result["expectation_config"]["meta"]["check"], result["expectation_config"]["severity"]): result["success"]
        for document in read
        for result in document["results"]
    }
    assert results[("a", "critical")] is False
    assert ("b", "warning") in results
    assert all(result["result"]["element_count"] for document in read for result in document["results"])
