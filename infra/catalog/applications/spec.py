"""spec: what must be said of an application."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from infra.contracts.ids import ApplicationName


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """One application of the platform.

    schedule: cron expression or preset of its snapshot refresh.
    request_budget_ms: the deadline of a request that states none; also the cap on what it may state.
    slow_ms: an answer that took longer counts as slow where snapshots are compared.
    conversions: the event types that are what the application is for; a canary counts them beside the clicks (any gain above 0).
    event_gain: how much each event type says that a user wants an item (0: ignored); other types count `default_gain`.
    """

    name: ApplicationName
    title: str
    schedule: str
    service: str
    request_budget_ms: float
    max_body_bytes: int
    trend_window: timedelta
    slow_ms: float
    conversions: frozenset[str]
    event_gain: dict[str, int]
    default_gain: int = 1

    def gain(self, event_type: str) -> int:
        """The relevance grade of one event of that type."""
        return self.event_gain.get(event_type, self.default_gain)
