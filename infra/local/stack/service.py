"""service: an application's BentoML service as a process of the stack."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from infra.catalog.applications.ranking import RANKING
from infra.config.settings import CHECKOUT, Settings
from infra.local.stack.environment import VENV_BIN, fingerprint, stack_environment
from infra.local.stack.ports import HOST
from infra.local.stack.processes import Launch


class RankingServer:
    """`bentoml serve` of the feed. It starts without a snapshot; /readyz turns green when one is live."""

    name = "ranking"
    title = "ranking service"
    port_setting = "HEADGATE_RANKING_PORT"
    ready_within_s = 120.0
    stop_signal = signal.SIGTERM
    grace_s = 10.0

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self.port = chosen.ranking_port

    @property
    def url(self) -> str:
        """The page; the API is below it."""
        return f"http://{HOST}:{self.port}"

    def launch(self, *, java_home: Path | None) -> Launch:
        """The checkout is the working directory, for BentoML imports the service from there."""
        command = [str(VENV_BIN / "bentoml"), "serve", RANKING.service, "--host", HOST, "--port", str(self.port)]
        variables = {"BENTOML_HOME": str(self._chosen.home.resolve() / "bentoml")}
        own = fingerprint(self._chosen, command=command, extra=variables)
        environment = {**stack_environment(self._chosen, java_home=None), **variables}
        return Launch(command, environment, CHECKOUT, own)

    def problem(self) -> str:
        """It serves once it tells its state; that a snapshot is live is another question."""
        try:
            httpx.get(f"{self.url}/status", timeout=3.0, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            return "starting"
        return ""
