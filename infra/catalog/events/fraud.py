"""fraud: card payments and what becomes of them."""

from __future__ import annotations

from infra.catalog.events.spec import EventSchema, EventType, FieldSpec
from infra.contracts.ids import ApplicationName

_AMOUNT = FieldSpec("int", required=True, low=0, high=10**12)  # minor units: cents
_CURRENCY = FieldSpec("text", required=True, max_bytes=3)

FRAUD_EVENTS = EventSchema(
    application=ApplicationName("fraud"),
    types={
        "transaction": EventType(
            ("card", "merchant"),
            {
                "amount_minor": _AMOUNT,
                "currency": _CURRENCY,
                "country": FieldSpec("text", max_bytes=2),
                "channel": FieldSpec("text", max_bytes=32),
            },
            optional=("device",),
        ),
        "declined": EventType(
            ("card", "merchant"), {"amount_minor": _AMOUNT, "currency": _CURRENCY}, optional=("device",)
        ),
        "chargeback": EventType(("card", "merchant"), {"amount_minor": _AMOUNT, "currency": _CURRENCY}),
    },
    fresh=frozenset({"card", "device"}),
)
