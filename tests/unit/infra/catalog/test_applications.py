"""The applications' specifications: found by name, whole, and with a grade for every event."""

from __future__ import annotations

import pytest

from infra.catalog.applications import APPLICATIONS, application
from infra.contracts.errors import UnknownApplication


def test_an_application_is_found_by_its_name_and_an_unknown_one_names_those_there_are() -> None:
    assert application("ranking").name == "ranking"
    with pytest.raises(UnknownApplication, match=r"no application 'feed'; there are: .*ranking"):
        application("feed")


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_specification_is_filed_under_its_own_name_and_can_be_met(name: str) -> None:
    spec = application(name)
    assert spec.name == name and spec.title and ":" in spec.service
    assert spec.request_budget_ms > 0 and spec.max_body_bytes >= 1024 and spec.trend_window.days >= 1
    assert all(gain >= 0 for gain in spec.event_gain.values()) and any(spec.event_gain.values())


def test_a_purchase_says_more_than_a_click_a_view_nothing_and_an_unheard_type_something() -> None:
    spec = application("ranking")
    assert spec.gain("view") == 0 < spec.gain("click") < spec.gain("purchase")
    assert spec.gain("share") == spec.default_gain == 1
