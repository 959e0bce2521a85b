"""What of BentoML's inside the front and /score_rows lean on, and what of its dispatcher keeps it off the cascade's own calls.

An upgrade that moves it fails here, and not in a request.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import bentoml
import numpy as np
import pytest
from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from _bentoml_sdk import Service
from bentoml._internal.marshal.dispatcher import CorkDispatcher

from bentos.ranking.rows import BATCHED_ROWS, LATEST_MS
from bentos.ranking.service import RankingService
from bentos.web.front import Front
from bentos.web.fronted import FrontedService


def test_the_decorator_takes_a_service_class() -> None:
    assert "service_class" in inspect.signature(bentoml.service).parameters
    assert isinstance(RankingService, FrontedService)


def test_a_service_is_called_to_make_its_instance_and_asked_for_its_asgi_application() -> None:
    assert issubclass(FrontedService, Service)
    assert list(inspect.signature(Service.to_asgi).parameters) == ["self", "is_main"]
    assert inspect.signature(Service.to_asgi).parameters["is_main"].default is True
    assert list(inspect.signature(Service.__call__).parameters) == ["self"]


def test_to_asgi_makes_an_application_factory_and_calls_it_and_ours_does_the_same() -> None:
    lines = [line.strip() for line in inspect.getsource(Service.to_asgi).splitlines()]
    at = lines.index("self.inject_config()")
    assert lines[at:] == [
        "self.inject_config()",
        "factory = ServiceAppFactory(self, is_main=is_main)",
        "return factory()",
    ]


def test_the_factory_s_batch_infer_is_what_an_endpoint_of_a_batchable_api_calls() -> None:
    assert list(inspect.signature(ServiceAppFactory.batch_infer).parameters) == [
        "self", "name", "input_args", "input_kwargs",
    ]  # fmt: skip
    endpoint = inspect.getsource(ServiceAppFactory.api_endpoint)
    assert "output = await self.batch_infer(name, call_args, call_kwargs)" in endpoint


def test_to_asgi_gives_the_front_with_the_application_s_own_limit() -> None:
    application = cast("FrontedService[RankingService]", RankingService).to_asgi()
    assert isinstance(application, Front)


def test_bentoml_ships_the_swagger_page_s_files_and_they_load_our_document() -> None:
    folder = Path(str(inspect.getsourcefile(bentoml))).parent
    shipped = {path.name: path for path in folder.rglob("swagger-*")}
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"):
        assert name in shipped, name
    assert "./docs.json" in shipped["swagger-initializer.js"].read_text()


Rows = np.ndarray
Dispatcher = CorkDispatcher[Rows, Rows]


class Calls:
    """The native call that a dispatcher forms batches for: the first stays under way until `go_on` is set."""

    def __init__(self) -> None:
        self.lengths: list[list[int]] = []
        self.go_on = asyncio.Event()

    async def score(self, batches: Sequence[Rows]) -> list[Rows]:
        """Each row's sum."""
        self.lengths.append([len(rows) for rows in batches])
        await self.go_on.wait()
        return [rows.sum(axis=1) for rows in batches]


def rows_in(rows: Rows) -> int:
    return len(rows)


def overloaded() -> Rows:
    raise LookupError("overloaded")


def test_the_version_is_the_one_whose_dispatcher_was_read() -> None:
    assert bentoml.__version__.startswith("1.4."), "read dispatcher.py again, then raise this"


async def test_its_dispatcher_makes_one_call_of_what_came_meanwhile_sized_in_rows_and_cuts_a_request_that_does_not_fit() -> (
    None
):
    calls = Calls()
    dispatch = Dispatcher(3_600_000, 10, fallback=overloaded, get_batch_size=rows_in)(calls.score)
    sizes = (1, 4, 4, 4)
    tasks = [asyncio.create_task(dispatch(np.full((n, 2), n, np.float32))) for n in sizes]
    async with asyncio.timeout(20):
        while not calls.lengths:
            await asyncio.sleep(0.001)
        calls.go_on.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.tolist() for answer in answers if answer is not None] == [[2.0 * n] * n for n in sizes]
    assert calls.lengths == [[1, 4, 4, 1], [3]]


async def test_its_dispatcher_answers_a_caller_who_gave_up_and_so_would_hide_a_deadline_that_passed() -> None:
    calls = Calls()
    dispatch = Dispatcher(3_600_000, 10, fallback=overloaded, get_batch_size=rows_in)(calls.score)
    with pytest.raises(LookupError, match="overloaded"):
        async with asyncio.timeout(0.05):
            await dispatch(np.ones((1, 2), np.float32))
    calls.go_on.set()


def test_its_dispatcher_looks_whether_the_call_before_has_ended_once_a_millisecond() -> None:
    assert CorkDispatcher.TICKET_INTERVAL == 0.001
    assert inspect.getsource(CorkDispatcher.controller).count("await asyncio.sleep(self.TICKET_INTERVAL)") == 2


def test_a_batchable_api_says_its_rows_and_its_patience() -> None:
    method = cast("Service[RankingService]", RankingService).apis["score_rows"]
    assert method.batchable and method.batch_dim == (0, 0)
    assert (method.max_batch_size, method.max_latency_ms) == (BATCHED_ROWS, LATEST_MS)
