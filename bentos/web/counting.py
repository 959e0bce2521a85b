"""counting: the front's replies in Prometheus, by route and status."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import prometheus_client

ELSEWHERE = "elsewhere"
"""Stands for every path that nobody serves, so that a caller cannot make the metric grow."""


def count_reply(route: str, status: int) -> None:
    """route: the path as its route has it, variables in braces, or ELSEWHERE."""
    _one(route, status).inc()


@functools.cache
def _one(route: str, status: int) -> prometheus_client.Counter:
    return _replies().labels(route, str(status))


@functools.cache
def _replies() -> prometheus_client.Counter:
    # Imported at first use: BentoML says where its workers' metrics go only after it has imported the service.
    from prometheus_client import Counter

    return Counter("headgate_http_replies", "Replies over HTTP", ["route", "status"])
