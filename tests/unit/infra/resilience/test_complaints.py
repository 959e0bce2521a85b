"""Warnings that do not flood a log."""

from __future__ import annotations

import logging

import pytest

from infra.resilience.complaints import Complaints


def test_what_fails_again_and_again_is_told_once_a_second_and_kind_with_the_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    complaints = Complaints(logging.getLogger("complaining"), clock=lambda: now[0])
    for _ in range(5):
        complaints.note("log", "it is away")
    complaints.note("shadow", "it failed")
    now[0] = 1.5
    complaints.note("log", "it is away")
    now[0] = 3.0
    complaints.note("log", "it is away")
    assert [record.getMessage() for record in caplog.records] == [
        "it is away",
        "it failed",
        "it is away (and 4 more since the last line)",
        "it is away",
    ]
