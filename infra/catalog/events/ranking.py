"""ranking: what users of a feed do, and what is new or changes in its catalogue."""

from __future__ import annotations

from infra.catalog.events.spec import EventSchema, EventType, FieldSpec
from infra.contracts.ids import ApplicationName

_ABOUT_AN_ITEM = ("user", "item")

RANKING_EVENTS = EventSchema(
    application=ApplicationName("ranking"),
    types={
        "view": EventType(_ABOUT_AN_ITEM, {"value": FieldSpec("float")}),
        "click": EventType(_ABOUT_AN_ITEM, {"value": FieldSpec("float")}),
        "rating": EventType(_ABOUT_AN_ITEM, {"value": FieldSpec("float")}),
        "purchase": EventType(_ABOUT_AN_ITEM, {"value": FieldSpec("float", low=0)}),
        "item_added": EventType(
            ("item",),
            {
                "title": FieldSpec("text", required=True),
                "creator": FieldSpec("text"),
                "genres": FieldSpec("text"),  # with | between
            },
        ),
        "item_changed": EventType(
            ("item",),
            {
                "available": FieldSpec("int", low=0, high=1),
                "title": FieldSpec("text"),
                "creator": FieldSpec("text"),
                "genres": FieldSpec("text"),
            },
        ),
        "search": EventType(("user",), {"query": FieldSpec("text", required=True, max_bytes=200)}),
    },
    fresh=frozenset({"user"}),
)
