"""scenes: short words for what the tests of experiments log: lists shown, events, canaries and who is in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from infra.catalog.applications.ranking import RANKING
from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import ItemId, UserId, VersionName
from infra.experiments.confidence import Float64s
from infra.experiments.judgement import Rules
from infra.experiments.visits import Did, VisitRule, Visits

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
VISIT = timedelta(minutes=30)
RULE = VisitRule.of(RANKING, VISIT)
RULES = Rules(alpha=0.05, tolerance=0.1, conversion_tolerance=0.1, users=1000, lasts=timedelta(hours=24), visit=RULE)
GENERATION = 7
LIVE, TRIED = VersionName("v1"), VersionName("v2")
ITEMS = tuple(ItemId(f"i{number}") for number in range(10))


def canary(fraction: float = 0.5, *, mode: CanaryMode = CanaryMode.CANARY, salt: str = "s") -> Canary:
    return Canary(TRIED, "d" * 64, fraction, salt, mode, START, "ada")


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def shown(
    user: str,
    at_s: float,
    *,
    arm: Arm = Arm.LIVE,
    version: VersionName | None = None,
    generation: int = GENERATION,
    items: tuple[ItemId, ...] = ITEMS,
    total_ms: float = 20.0,
    degraded: bool = False,
    request: str = "",
) -> Exposure:
    """A list, so many seconds after the start; of its arm's version unless another is given."""
    return Exposure(
        request_id=request or f"{user}@{at_s}",
        user_id=UserId(user),
        at=after(at_s),
        generation=generation,
        version=version or (LIVE if arm is Arm.LIVE else TRIED),
        arm=arm,
        items=items,
        total_ms=total_ms,
        degraded=degraded,
    )


def did(user: str, at_s: float, item: str = "i0", *, what: str = "click") -> Did:
    """An event, logged so many seconds after the start."""
    return Did(after(at_s).timestamp(), UserId(user), ItemId(item), what)


def arm_of(tried: Canary, user: str) -> Arm:
    return Arm.CANARY if tried.takes(user) else Arm.LIVE


def users_of(tried: Canary, arm: Arm, count: int) -> list[str]:
    """The first users of that share."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"u{number}"
        if arm_of(tried, name) is arm:
            found.append(name)
        number += 1
    return found


def drawn_visits(
    tried: Canary,
    users: int,
    *,
    clicks: tuple[float, float] = (0.3, 0.3),
    buys: tuple[float, float] = (0.2, 0.2),
    slow: tuple[float, float] = (0.01, 0.01),
    unserved: float = 0.0,
    share: float | None = None,
    seed: int = 1,
    begun_s: float = 600.0,
    unserved_lately: float | None = None,
) -> Visits:
    """Visits of that many users with those chances (live, canary), all first seen so long after the start."""
    rng = np.random.default_rng(seed)
    treated = rng.random(users) < (tried.fraction if share is None else share)

    def column(chances: tuple[float, float]) -> Float64s:
        return (rng.random(users) < np.where(treated, chances[1], chances[0])).astype(np.float64)

    return Visits(
        treated=treated,
        first_seen_s=np.full(users, after(begun_s).timestamp()),
        click_through=column(clicks),
        conversion=column(buys),
        slow=column(slow),
        degraded=np.zeros(users),
        unserved=(treated & (rng.random(users) < unserved)).astype(np.float64),
        pending=0,
        misassigned=0,
        unserved_lately=unserved if unserved_lately is None else unserved_lately,
    )
