"""applications: one specification a file; everything else (DAGs, alias, gate) follows from it."""

from __future__ import annotations

from infra.catalog.applications.ranking import RANKING
from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.errors import UnknownApplication
from infra.contracts.ids import ApplicationName

APPLICATIONS: dict[ApplicationName, ApplicationSpec] = {RANKING.name: RANKING}


def application(name: str) -> ApplicationSpec:
    """The specification of that name; raises UnknownApplication."""
    spec = APPLICATIONS.get(ApplicationName(name))
    if spec is None:
        raise UnknownApplication(f"There is no application {name!r}; there are: {', '.join(sorted(APPLICATIONS))}.")
    return spec
