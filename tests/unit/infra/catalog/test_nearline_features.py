"""The shipped nearline features: what their state is called by, and what they say of a day's events."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.catalog.events import SCHEMAS, schema_of
from infra.catalog.features.nearline import plan_of
from infra.contracts.errors import UnknownApplication
from infra.contracts.features import Deltas, FeatureValue

CODES = json.loads(Path(__file__).with_name("nearline_codes.json").read_text())
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_no_shipped_feature_has_lost_the_state_that_it_was_counting() -> None:
    """A new code means that state counted until now is never read again: then change nearline_codes.json, and say so."""
    codes = {f"{spec.entity}.{spec.name}": spec.code for name in sorted(SCHEMAS) for spec in plan_of(name).specs}
    assert codes == CODES


def features_after(
    application: str, kind: str, entity_id: str, said: list[dict[str, object]]
) -> dict[str, FeatureValue]:
    """Each event happened that many minutes before NOW."""
    schema, plan, deltas = schema_of(application), plan_of(application), Deltas()
    for event in said:
        happened = NOW - timedelta(minutes=float(str(event.pop("ago"))))
        plan.accumulate(schema.parse(event | {"event_time": happened.isoformat()}, now=NOW).records(), deltas)
    return plan.features(kind, deltas.get((kind, entity_id), {}), int(NOW.timestamp() * 1_000_000))


def paid(ago: float, amount: int, *, what: str = "transaction", merchant: str = "m1", **more: str) -> dict[str, object]:
    return {
        "event_type": what,
        "card_id": "c1",
        "merchant_id": merchant,
        "amount_minor": amount,
        "currency": "EUR",
        "ago": ago,
        **more,
    }


def test_a_cards_features() -> None:
    said = [
        paid(5, 1200, device_id="d1"),
        paid(30, 10**12, merchant="m2", device_id="d2"),
        paid(40, 700, what="declined", merchant="m3"),
        paid(70, 50),
    ]
    assert features_after("fraud", "card", "c1", said) == {
        "transactions_last_10_minutes": 1,
        "transactions_last_hour": 2,
        "spend_last_hour_minor": 10**12 + 1200,
        "spend_last_day_minor": 10**12 + 1250,
        "declined_last_hour": 1,
        "merchants_last_hour": 3,
        "devices_last_day": 2,
    }


def test_a_merchants_features() -> None:
    said = [paid(5, 1200), paid(30, 800), paid(40, 700, what="declined"), paid(600, 800, what="chargeback")]
    assert features_after("fraud", "merchant", "m1", said) == {
        "transactions_last_10_minutes": 1,
        "transactions_last_hour": 2,
        "turnover_last_hour_minor": 2000,
        "declined_last_hour": 1,
        "chargebacks_last_day": 1,
        "cards_last_hour": 1,
    }


def test_a_devices_features() -> None:
    said = [
        paid(5, 1, device_id="d1"),
        {**paid(7, 1, what="declined", device_id="d1"), "card_id": "c2"},
        {**paid(100, 1, device_id="d1"), "card_id": "c3"},
        paid(9, 1),
    ]
    assert features_after("fraud", "device", "d1", said) == {
        "transactions_last_hour": 1,
        "declined_last_hour": 1,
        "cards_last_day": 3,
    }


def test_a_users_features() -> None:
    def did(ago: float, what: str, item: str) -> dict[str, object]:
        return {"event_type": what, "user_id": "u1", "item_id": item, "ago": ago}

    said = [
        did(200, "click", "i9"),
        did(75, "click", "i1"),
        did(50, "click", "i2"),
        did(40, "view", "i3"),
        did(30, "click", "i1"),
        did(3, "purchase", "i4"),
        {"event_type": "search", "user_id": "u1", "query": "tea: green", "ago": 2},
    ]
    assert features_after("ranking", "user", "u1", said) == {
        "clicks_last_hour": 2,
        "purchases_last_hour": 1,
        "clicks_in_session": 3,
        "recent_items": ("i4", "i1", "i2", "i9"),
        "recent_searches": ("tea: green",),
    }


def test_a_cells_a_drivers_and_a_riders_features() -> None:
    def rode(ago: float, what: str, **whom: str) -> dict[str, object]:
        return {"event_type": what, "cell_id": "x1", "ago": ago, **whom}

    def said() -> list[dict[str, object]]:
        return [
            rode(1, "ride_request", rider_id="r1"),
            rode(2, "driver_available", driver_id="d1"),
            rode(3, "driver_available", driver_id="d1"),
            rode(4, "driver_available", driver_id="d2"),
            rode(5, "ride_accepted", driver_id="d1", rider_id="r1"),
            rode(6, "driver_cancelled", driver_id="d1", rider_id="r1"),
            rode(20, "rider_cancelled", driver_id="d1", rider_id="r1"),
        ]

    assert features_after("dispatch", "cell", "x1", said()) == {
        "demand_last_10_minutes": 1,
        "supply_last_10_minutes": 2,
        "cancellations_last_10_minutes": 1,
    }
    assert features_after("dispatch", "driver", "d1", said()) == {"cancellations_last_hour": 1, "rides_last_hour": 1}
    assert features_after("dispatch", "rider", "r1", said()) == {"cancellations_last_hour": 1, "requests_last_hour": 1}


def test_an_application_without_events_is_named() -> None:
    with pytest.raises(UnknownApplication, match="No events are declared for 'weather'"):
        plan_of("weather")
