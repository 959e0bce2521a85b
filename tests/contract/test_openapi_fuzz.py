"""The OpenAPI document held to what the service does: generated requests, good and bad, bring no 5xx and what it describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from bentos.web.front import BENTOML_PATHS
from tests.fixtures.proof import sized
from tests.fixtures.service import Served, feed

Operation = APIOperation[Any, Any, Any, Any]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
WITHOUT_FALLBACK = {"/score_rows"}
"""Where nothing can be answered by a deadline of 1 ms but that it has passed."""
JUDGED_BY_ENTRY = {"/events", "/recommend_many"}
"""Where a bad entry is refused in the reply, beside the good ones."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with feed(tmp_path_factory.mktemp("service")) as served:
        yield served


def operations(served: Served) -> dict[str, Operation]:
    """By method and path: all that the document describes."""
    schema = schemathesis.openapi.from_url(f"{served.url}/docs.json")
    found = (cast("Ok[Operation]", result).ok() for result in schema.get_all_operations())
    return {operation.label: operation for operation in found if operation.path not in BENTOML_PATHS}


def test_every_operation_answers_as_it_is_described(served: Served, subtests: pytest.Subtests) -> None:
    described = operations(served)
    assert len(described) >= 10
    for label, operation in described.items():
        takes_anything = operation.body or operation.query or operation.path_parameters
        for mode in GenerationMode if takes_anything else [GenerationMode.POSITIVE]:
            with subtests.test(f"{label} {mode.value}"):
                hold(operation, mode)
    log = served.log.read_text()
    assert "Traceback" not in log, log[-3000:]
    assert httpx.get(f"{served.url}/readyz").status_code == 200


def hold(operation: Operation, mode: GenerationMode) -> None:
    """Ask what the document allows, or what it does not."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=sized(15, full=500),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def asked(case: Case[Any]) -> None:
        response = case.call(timeout=30)
        checks = CHECKS if operation.path in JUDGED_BY_ENTRY else [*CHECKS, negative_data_rejection]
        if response.status_code == 413:
            checks = CHECKS
        elif response.status_code == 504 and operation.path in WITHOUT_FALLBACK:
            checks = [check for check in checks if check is not not_a_server_error]
        case.validate_response(response, checks=checks)

    asked()
