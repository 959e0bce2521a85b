"""trials: the canary or shadow of a version as the page shows it: what runs, by the newest look, or how the last one ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.contracts.canaries import CanaryMode
from infra.contracts.errors import SnapshotNotFound
from infra.contracts.snapshots import Alias
from infra.experiments.filing import CanaryResult, newest_result
from infra.snapshots.versions import Version


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of it. verdict, summary, because: as the judgement has them."""

    verdict: str
    summary: str
    because: str
    judged_at: datetime


@dataclass(frozen=True, slots=True)
class Trial:
    """One try of a version on a share of the users. since: when it began; None where it is over.

    look: None where nobody has looked at it yet. report: whether there is a page of how it ended.
    """

    mode: CanaryMode
    fraction: float
    since: datetime | None
    look: Look | None
    report: bool


def trial_of(version: Version, live: Alias | None, newest: CanaryResult | None) -> Trial | None:
    """What runs of the version beside `live`, else its last trial; None where it was never tried to an end.

    newest: the newest look at whatever canary that was.
    """
    canary = live.canary if live is not None else None
    if live is not None and canary is not None and canary.version == version.version:
        seen = newest is not None and (newest.version, newest.generation) == (version.version, live.generation)
        return Trial(canary.mode, canary.fraction, canary.started_at, _look(newest) if newest and seen else None, False)
    last = newest_result(version)
    return Trial(last.mode, last.fraction, None, _look(last), True) if last is not None else None


def canary_page(version: Version) -> tuple[str, bytes]:
    """(file name, HTML) of how its last canary ended; raises SnapshotNotFound where none was judged to an end."""
    last = newest_result(version)
    if last is None:
        raise SnapshotNotFound(
            f"No canary of {version.label} was judged to an end.",
            mend=f"Run: python -m infra.snapshots canary start --version {version.version}",
        )
    return f"{version.application}-{version.version}-{last.mode}.html", version.storage.read(last.page)


def _look(found: CanaryResult) -> Look:
    return Look(found.verdict, found.summary, found.because, found.judged_at)
