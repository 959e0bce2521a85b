"""When a refresh counts as late, and what is said then."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from dags.late import announce, refresh_deadline


@pytest.mark.parametrize(("slo_h", "may_take_h"), [(36, 12), (48, 24), (24, 1), (2, 1)])
def test_a_refresh_may_take_what_the_slo_leaves_after_a_day_and_an_hour_at_least(slo_h: int, may_take_h: int) -> None:
    deadline = refresh_deadline(application="ranking", freshness_slo=timedelta(hours=slo_h))
    assert deadline.interval == timedelta(hours=may_take_h)
    assert deadline.callback.path == "dags.late.announce"
    assert deadline.callback.kwargs == {"application": "ranking"}


def test_a_late_refresh_is_named_with_its_run_and_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    context = {
        "dag_run": {"dag_run_id": "scheduled__1", "queued_at": "2024-06-01T00:00:00Z"},
        "deadline": {"deadline_time": "2024-06-01T12:00:00Z"},
    }
    with caplog.at_level(logging.ERROR, logger="headgate.late"):
        announce(application="ranking", context=context)
    assert "ranking: the refresh scheduled__1" in caplog.text
    assert "2024-06-01T12:00:00Z" in caplog.text
