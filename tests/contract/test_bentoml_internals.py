"""What of BentoML's inside the front leans on: an upgrade that moves it fails here, and not in a request."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import cast

import bentoml
from _bentoml_sdk import Service

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


def test_to_asgi_gives_the_front_with_the_application_s_own_limit() -> None:
    application = cast("FrontedService[RankingService]", RankingService).to_asgi()
    assert isinstance(application, Front)


def test_bentoml_ships_the_swagger_page_s_files_and_they_load_our_document() -> None:
    folder = Path(str(inspect.getsourcefile(bentoml))).parent
    shipped = {path.name: path for path in folder.rglob("swagger-*")}
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"):
        assert name in shipped, name
    assert "./docs.json" in shipped["swagger-initializer.js"].read_text()
