"""fronted: a BentoML service whose requests meet our front first; BentoML keeps the process, the workers and the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from _bentoml_sdk import Service

from bentos.web.front import Front, Route
from infra.contracts.errors import ContractViolation

if TYPE_CHECKING:
    from starlette.types import ASGIApp

T = TypeVar("T")


class Routed(Protocol):
    """A service class that lists its routes."""

    max_body_bytes: int

    def routes(self) -> Sequence[Route]:
        """Asked once, after start-up."""


class FrontedService(Service[T]):
    """Given to @bentoml.service as `service_class`: `add_asgi_middleware` would sit inside metrics and access log."""

    def __call__(self) -> T:
        """BentoML makes the instance here, in the worker's start-up; the front needs the same one."""
        self._instance = super().__call__()
        return self._instance

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """BentoML's application behind the front."""
        # Imported here, as BentoML does: its workers' metrics have their place only then.
        from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]

        self.inject_config()
        self._application = ServiceAppFactory(self, is_main=is_main)
        limit = cast(type[Routed], self.inner).max_body_bytes
        return Front(cast("ASGIApp", self._application()), self._routes, max_body_bytes=limit)

    async def batched(self, name: str, **value: object) -> Any:
        """A batchable API, called as BentoML's own endpoint calls it: by its dispatcher, which makes one call of concurrent ones.

        Raises what the API raises, ServiceUnavailable where the dispatcher gave up.
        """
        return await self._application.batch_infer(name, (), value)

    def _routes(self) -> Sequence[Route]:
        instance: Any = getattr(self, "_instance", None)
        if instance is None:
            raise ContractViolation("A request came before BentoML had made the service.")
        return cast(Routed, instance).routes()
