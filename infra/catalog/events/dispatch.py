"""dispatch: riders ask, drivers are there, and either may cancel."""

from __future__ import annotations

from infra.catalog.events.spec import EventSchema, EventType
from infra.contracts.ids import ApplicationName

DISPATCH_EVENTS = EventSchema(
    application=ApplicationName("dispatch"),
    types={
        "ride_request": EventType(("rider", "cell")),
        "driver_available": EventType(("driver", "cell")),
        "ride_accepted": EventType(("driver", "rider", "cell")),
        "driver_cancelled": EventType(("driver", "rider", "cell")),
        "rider_cancelled": EventType(("rider", "driver", "cell")),
    },
    fresh=frozenset({"rider", "driver"}),
)
