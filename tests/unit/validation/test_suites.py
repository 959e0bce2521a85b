"""The suites are whole: each check is used, named as its file, and known to reject something."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from infra.catalog.applications import APPLICATIONS
from infra.contracts.errors import UnknownApplication
from infra.contracts.ids import ApplicationName
from tests.unit.validation.bad_examples import BAD_EXAMPLES
from validation import checks
from validation.check import Check, Severity, Status
from validation.suites import SUITES, suite_of

MODULES = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))
IN_SUITES = {check.name: check for suite in SUITES.values() for check in suite.checks}


def check_classes(module: str) -> list[type[Check]]:
    found = import_module(f"{checks.__name__}.{module}")
    return [
        value
        for value in vars(found).values()
        if isinstance(value, type) and issubclass(value, Check) and value.__module__ == found.__name__
    ]


@pytest.mark.parametrize("module", MODULES)
def test_a_file_holds_one_check_of_its_name_that_a_suite_uses(module: str) -> None:
    (found,) = check_classes(module)
    assert found.name == module
    assert type(IN_SUITES.get(module)) is found, f"add {found.__name__} to a suite in validation/suites"


@pytest.mark.parametrize("name", sorted(IN_SUITES))
def test_a_check_has_a_bad_example_that_it_answers_with_its_severity(name: str) -> None:
    worst = {Severity.FAIL: Status.FAILED, Severity.WARN: Status.WARNED}[IN_SUITES[name].severity]
    assert worst in {bad.status for bad in BAD_EXAMPLES if bad.check == name}, (
        f"add one to tests/unit/validation/bad_examples.py for {name}"
    )


def test_a_bad_example_is_of_a_check_that_exists() -> None:
    assert {bad.check for bad in BAD_EXAMPLES} <= set(IN_SUITES)


def test_every_application_has_a_suite_with_distinct_names_and_titles() -> None:
    assert set(SUITES) == set(APPLICATIONS)
    for suite in SUITES.values():
        assert len({check.name for check in suite.checks}) == len(suite.checks)
        assert len({check.title for check in suite.checks}) == len(suite.checks)


def test_an_application_without_a_suite_is_an_error_that_names_the_file_to_write() -> None:
    with pytest.raises(UnknownApplication, match=r"Add validation/suites/chess\.py"):
        suite_of(ApplicationName("chess"))
