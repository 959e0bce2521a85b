"""late: what Airflow calls when a refresh has not ended by the time at which the freshness SLO is in danger."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk.definitions.callback import SyncCallback  # airflow.sdk's own stub lacks these
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

_log = logging.getLogger("headgate.late")

_PERIOD = timedelta(days=1)
_LEAST = timedelta(hours=1)


def refresh_deadline(*, application: str, freshness_slo: timedelta) -> DeadlineAlert:
    """A refresh that begins when the live snapshot is a period old must end within SLO - period, or the SLO is missed."""
    return DeadlineAlert(
        name=f"{application}: fresh in time",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=max(freshness_slo - _PERIOD, _LEAST),
        callback=SyncCallback(announce, {"application": application}),
    )


def announce(*, application: str, context: dict[str, Any]) -> None:
    """Say it in the scheduler's callback log; the run's page shows the missed deadline."""
    run = context["dag_run"]
    _log.error(
        "%s: the refresh %s (queued %s) has not ended by its deadline %s; the live snapshot is about to miss the freshness SLO. "
        "Look at the running task's log.",
        application,
        run["dag_run_id"],
        run["queued_at"],
        context["deadline"]["deadline_time"],
    )
