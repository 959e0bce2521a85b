"""telemetry: what the feed's service counts: Prometheus histograms beside BentoML's, and counters for /status."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bentos.ranking.query import RankingQuery
from infra.cascade.batch import Outcome, Reason
from infra.cascade.kinds import SideEffect
from infra.cascade.lane import ABANDONED, REFUSED

if TYPE_CHECKING:
    import prometheus_client

_BUCKETS_MS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@functools.cache
def _stage_ms() -> prometheus_client.Histogram:
    # Imported at first use: BentoML says where its workers' metrics go only after it has imported the service.
    from prometheus_client import Histogram

    return Histogram(
        "headgate_stage_ms", "Wall-clock of a stage of the cascade", ["application", "stage"], buckets=_BUCKETS_MS
    )


@functools.cache
def _requests() -> prometheus_client.Counter:
    from prometheus_client import Counter as PrometheusCounter

    return PrometheusCounter(
        "headgate_requests", "Requests answered with a list", ["application", "decided_by", "degraded"]
    )


@functools.cache
def _held_back() -> prometheus_client.Counter:
    from prometheus_client import Counter as PrometheusCounter

    return PrometheusCounter(
        "headgate_stages_held_back",
        "Stages that did not run, did not count or did not finish, by why",
        ["application", "stage", "reason"],
    )


@functools.cache
def _settled() -> prometheus_client.Counter:
    from prometheus_client import Counter as PrometheusCounter

    return PrometheusCounter(
        "headgate_settled", "Requests for which a scorer was sure enough to end the scoring", ["application", "by"]
    )


BESIDE = {
    "exposures_logged": "Lists, shown or scored by a shadow, that the log took",
    "exposures_lost": "Lists that the log did not take",
    "decisions_logged": "Answers that the decision log took",
    "decisions_lost": "Answers that the decision log did not take",
    "events": "Events that the log took",
    "events_known_before": "Events that were sent again; they count once",
    "events_refused": "Events that were refused, and kept among the dead letters",
    "events_not_noted": "Records that the log took and that the next request may not see before they are counted",
    "shadow_scored": "Requests that a shadow scored after their answer",
    "shadow_dropped": "Requests that a shadow did not score because it was busy with another",
    "shadow_failed": "Requests that a shadow could not score",
    ABANDONED: "Native calls that ran on when their request had no time left",
    REFUSED: "Native calls that were not begun because an abandoned one still ran",
}
"""What happens beside the answers, by its name in /status and, after `headgate_`, in Prometheus."""


@functools.cache
def _beside(name: str) -> prometheus_client.Counter:
    from prometheus_client import Counter as PrometheusCounter

    return PrometheusCounter(f"headgate_{name}", BESIDE[name], ["application"])


class Telemetry(SideEffect[RankingQuery]):
    """Counts every outcome of the cascade that it is a step of, and what happens beside."""

    name = "telemetry"

    def __init__(self, application: str) -> None:
        self._application = application
        self._histograms: dict[str, prometheus_client.Histogram] = {}
        self.counters: Counter[str] = Counter(dict.fromkeys(BESIDE, 0))

    def note(self, name: str, number: int = 1) -> None:
        """Count one of `BESIDE`."""
        _beside(name).labels(self._application).inc(number)
        self.counters[name] += number

    def open(self, stages: Iterable[str]) -> None:
        """Make the metrics, so that no request has to: it would take the first one some milliseconds."""
        for stage in stages:
            self._histograms[stage] = _stage_ms().labels(self._application, stage)
        for degraded in ("false", "true"):
            _requests().labels(self._application, "ranker", degraded)

    async def act(self, query: RankingQuery, outcome: Outcome) -> None:
        """One observation a stage, one count a request."""
        for stage, taken_ms in outcome.stage_ms.items():
            histogram = self._histograms.get(stage)
            if histogram is None:
                histogram = self._histograms[stage] = _stage_ms().labels(self._application, stage)
            histogram.observe(taken_ms)
        self._note_held_back(outcome)
        degraded = "true" if outcome.degraded else "false"
        _requests().labels(self._application, outcome.decided_by, degraded).inc()
        self.counters["recommendations"] += 1
        self.counters["degraded"] += outcome.degraded
        self.counters[f"decided_by_{outcome.decided_by}"] += 1
        for removed in outcome.removed:
            self.counters[f"removed_by_{removed.by}"] += len(removed.ids)

    def _note_held_back(self, outcome: Outcome) -> None:
        """Each stage under its reason; of those that did a part, how many rows and parts it was, to be divided by their number."""
        for stage, reason in outcome.reasons.items():
            _held_back().labels(self._application, stage, str(reason)).inc()
            self.counters[f"{reason}_{stage}"] += 1
            if reason is Reason.PARTLY:
                extent = outcome.extents[stage]
                self.counters[f"rows_of_partly_{stage}"] += extent.rows
                self.counters[f"parts_of_partly_{stage}"] += extent.parts or 0
        if outcome.settled_by:
            _settled().labels(self._application, outcome.settled_by).inc()
            self.counters[f"settled_by_{outcome.settled_by}"] += 1
