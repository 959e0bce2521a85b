"""The deadline on a clock of the test's own."""

from __future__ import annotations

from infra.resilience.deadline import Deadline


def test_a_deadline_counts_down_on_the_clock_it_was_given_and_may_be_negative() -> None:
    now = [100.0]
    deadline = Deadline.after_ms(50, clock=lambda: now[0])
    assert round(deadline.remaining_ms(), 6) == 50
    now[0] += 0.02
    assert round(deadline.remaining_ms(), 6) == 30
    assert round(deadline.elapsed_ms(), 6) == 20
    now[0] += 0.05
    assert round(deadline.remaining_ms(), 6) == -20
