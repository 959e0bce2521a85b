"""default_service: the feed under BentoML's defaults, for comparison: its own routes, access log and tracing, no front."""

from __future__ import annotations

import bentoml

from bentos.ranking.service import RankingService

DefaultService = bentoml.service(workers=1)(RankingService.inner)  # type: ignore[attr-defined]
"""Start it with `bentoml serve tests.bench.default_service:DefaultService`."""
