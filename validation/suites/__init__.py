"""suites: which checks an application's snapshots must pass; one file an application."""

from __future__ import annotations

from infra.catalog.applications.ranking import RANKING
from infra.contracts.errors import UnknownApplication
from infra.contracts.ids import ApplicationName
from validation.suites.ranking import RANKING_SUITE
from validation.suites.suite import Suite

SUITES: dict[ApplicationName, Suite] = {RANKING.name: RANKING_SUITE}


def suite_of(application: ApplicationName) -> Suite:
    """The suite of that application; raises UnknownApplication."""
    suite = SUITES.get(application)
    if suite is None:
        raise UnknownApplication(
            f"There is no suite for {application!r}; there are: {', '.join(sorted(SUITES))}.",
            mend=f"Add validation/suites/{application}.py and its line in validation/suites/__init__.py.",
        )
    return suite
