"""Spans of a request's stages: as long as the stages were, in one trace, and none where nobody asked for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from bentos.web.tracing import StageSpans
from infra.cascade.batch import Outcome
from infra.cascade.runner import Cascade
from infra.cascade.steps import FAIL, SKIP, USE_PREVIOUS, Step, Together
from infra.config.settings import CHECKOUT
from infra.resilience.deadline import Deadline
from tests.unit.infra.cascade.breaking import AHydrator, AScorer, ASource, Behaviour, Query, found, gives, raises

NOW_NS = 1_700_000_000_000_000_000


class Clock:
    """Moves when a stage takes its time."""

    def __init__(self) -> None:
        self.s = 5.0

    def __call__(self) -> float:
        return self.s

    def takes(self, ms: float, made: object) -> Behaviour:
        async def behave(batch: object) -> object:
            self.s += ms / 1000
            return made

        return behave


async def spans_of(
    steps: Sequence[Step[Query] | Together[Query]], clock: Clock, *, sampler: Sampler = ALWAYS_ON
) -> tuple[dict[str, ReadableSpan], Outcome]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans: StageSpans[Query] = StageSpans(provider.get_tracer("test"), "feed", now_ns=lambda: NOW_NS)
    cascade = Cascade([*steps, Step(spans, SKIP, None)], clock=clock)
    outcome = await cascade.run({}, Deadline.after_ms(100, clock=clock))
    return {span.name: span for span in exporter.get_finished_spans()}, outcome


def times_ms(span: ReadableSpan) -> tuple[float, float]:
    """When it began and ended, before now."""
    assert span.start_time is not None and span.end_time is not None
    return (NOW_NS - span.start_time) / 1e6, (NOW_NS - span.end_time) / 1e6


async def test_every_stage_has_a_span_of_its_time_within_the_request_s() -> None:
    clock = Clock()
    steps = [
        Step(ASource(clock.takes(3, found(1, 2))), FAIL, None),
        Step(AHydrator(clock.takes(2, {"x": np.ones(2)})), FAIL, 50),
        Step(AScorer(gives(lambda batch: batch.scores)), FAIL, None, settles=lambda query, batch: True),
        Step(AHydrator(gives({}), "refining"), USE_PREVIOUS, None, refines=True),
    ]
    spans, _ = await spans_of(steps, clock)
    whole = spans.pop("feed cascade")
    assert times_ms(whole) == pytest.approx((5, 0), abs=1e-3)
    assert times_ms(spans["a source"]) == pytest.approx((5, 2), abs=1e-3)
    assert times_ms(spans["a hydrator"]) == pytest.approx((2, 0), abs=1e-3)
    assert spans.keys() == {"a source", "a hydrator", "a scorer"}
    assert whole.context is not None
    assert {span.parent.span_id for span in spans.values() if span.parent} == {whole.context.span_id}
    assert dict(whole.attributes or {}) == {
        "headgate.decided_by": "a scorer",
        "headgate.degraded": False,
        "headgate.shown": 2,
        "headgate.settled_by": "a scorer",
    }
    (event,) = whole.events
    assert dict(event.attributes or {}) == {
        "stage": "refining",
        "reason": "settled",
        "because": "settled by a scorer",
    }


async def test_a_stage_that_failed_says_so() -> None:
    clock = Clock()
    steps = [Step(ASource(gives(found(1))), FAIL, None), Step(AScorer(raises), USE_PREVIOUS, None)]
    spans, _ = await spans_of(steps, clock)
    assert spans["a scorer"].status.status_code is StatusCode.ERROR
    assert (spans["a scorer"].attributes or {})["headgate.reason"] == "failed"
    assert spans["a source"].status.status_code is StatusCode.UNSET


async def test_a_request_that_is_not_in_the_sample_leaves_no_span() -> None:
    spans, outcome = await spans_of([Step(ASource(gives(found(1))), FAIL, None)], Clock(), sampler=ALWAYS_OFF)
    assert not spans and not outcome.skipped


def test_nothing_is_traced_where_bentoml_is_not_told_to() -> None:
    program = "from bentos.web.tracing import traced; print(*[effect.name for effect in traced('feed')], end='')"
    exporter = {"exporter_type": "in_memory"}
    for options, told in (
        ({}, ""),
        (exporter, ""),
        ({"sample_rate": 0.5}, ""),
        (exporter | {"sample_rate": 0.0}, ""),
        (exporter | {"sample_rate": 0.5}, "tracing"),
    ):
        variables = {**os.environ, "BENTOML_CONFIG_OVERRIDES": json.dumps({"tracing": options})}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=CHECKOUT, env=variables, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1:] == ([told] if told else []), options
