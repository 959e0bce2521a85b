"""events: what each application's events may say, one schema a file."""

from __future__ import annotations

from infra.catalog.events.dispatch import DISPATCH_EVENTS
from infra.catalog.events.fraud import FRAUD_EVENTS
from infra.catalog.events.ranking import RANKING_EVENTS
from infra.catalog.events.spec import EventSchema
from infra.contracts.errors import UnknownApplication
from infra.contracts.ids import ApplicationName

SCHEMAS: dict[ApplicationName, EventSchema] = {
    schema.application: schema for schema in (RANKING_EVENTS, FRAUD_EVENTS, DISPATCH_EVENTS)
}


def schema_of(application: str) -> EventSchema:
    """The schema of that application's events; raises UnknownApplication."""
    schema = SCHEMAS.get(ApplicationName(application))
    if schema is None:
        raise UnknownApplication(
            f"No events are declared for {application!r}; there are: {', '.join(sorted(SCHEMAS))}."
        )
    return schema
