"""tracing: OpenTelemetry spans of a request's stages, made once it is answered, where BentoML is told to trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infra.cascade.batch import Outcome, Reason
from infra.cascade.kinds import Q, SideEffect

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_NS_PER_MS = 1e6


def traced(application: str) -> tuple[SideEffect[Any], ...]:
    """The side effect that traces; none where BentoML's configuration names no exporter or samples nothing.

    It is told by BENTOML_CONFIG_OVERRIDES, as
    `{"tracing": {"exporter_type": "otlp", "sample_rate": 0.01, "otlp": {"protocol": "http", "endpoint": "..."}}}`.
    Asked in a worker: BentoML's provider says whose worker it is.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer

    chosen = BentoMLContainer.tracing
    if not chosen.exporter_type.get() or not chosen.sample_rate.get():
        return ()
    return (StageSpans(BentoMLContainer.tracer_provider.get().get_tracer("headgate"), application),)


class StageSpans(SideEffect[Q]):
    """One span a request and one in it for each stage that ran, with the times that the runner took.

    A request that is not in the sample costs one span that is thrown away, one that is some 25 us a stage.
    """

    name = "tracing"

    def __init__(self, tracer: Tracer, application: str, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._tracer = tracer
        self._application = application
        self._now_ns = now_ns

    async def act(self, query: Q, outcome: Outcome) -> None:
        """After the other steps: what comes behind it has no span."""
        now_ns = self._now_ns()
        began_ns = now_ns - int(outcome.started_ms[self.name] * _NS_PER_MS)
        whole = self._tracer.start_span(f"{self._application} cascade", start_time=began_ns)
        if whole.get_span_context().trace_flags.sampled:
            self._tell(whole, outcome, began_ns)
        whole.end(end_time=now_ns)

    def _tell(self, whole: Span, outcome: Outcome, began_ns: int) -> None:
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        whole.set_attribute("headgate.decided_by", outcome.decided_by)
        whole.set_attribute("headgate.degraded", outcome.degraded)
        whole.set_attribute("headgate.shown", len(outcome.batch))
        if outcome.settled_by:
            whole.set_attribute("headgate.settled_by", outcome.settled_by)
        within = set_span_in_context(whole)
        for stage, taken_ms in outcome.stage_ms.items():
            starts_ns = began_ns + int(outcome.started_ms[stage] * _NS_PER_MS)
            span = self._tracer.start_span(stage, context=within, start_time=starts_ns)
            reason = outcome.reasons.get(stage)
            if reason is not None:
                span.set_attribute("headgate.reason", str(reason))
                span.set_attribute("headgate.skipped", outcome.skipped[stage])
                if reason is not Reason.PARTLY:
                    span.set_status(Status(StatusCode.ERROR, outcome.skipped[stage]))
            span.end(end_time=starts_ns + int(taken_ms * _NS_PER_MS))
        for stage in outcome.reasons.keys() - outcome.stage_ms.keys():
            said = {"stage": stage, "reason": str(outcome.reasons[stage]), "because": outcome.skipped[stage]}
            whole.add_event("left out", said)
