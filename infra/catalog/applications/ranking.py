"""ranking: a video or shop feed; the first application of the platform."""

from __future__ import annotations

from datetime import timedelta

from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.ids import ApplicationName

RANKING = ApplicationSpec(
    name=ApplicationName("ranking"),
    title="Feed ranking",
    schedule="@daily",
    service="bentos.ranking.service:RankingService",
    request_budget_ms=150,
    max_body_bytes=256 * 1024,
    trend_window=timedelta(days=7),
    slow_ms=100,
    conversions=frozenset({"purchase"}),
    event_gain={"view": 0, "click": 1, "rating": 1, "purchase": 2},
)
