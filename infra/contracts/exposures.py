"""exposures: what a user was shown, from which snapshot, as the service logs it beside the events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from infra.contracts.ids import ItemId, UserId, VersionName


class Arm(StrEnum):
    """Which share of the users this one was in, by the canary's bucket."""

    LIVE = "live"
    """The live snapshot's: everybody where no canary runs."""
    CANARY = "canary"
    """The canary's."""
    SHADOW = "shadow"
    """No share of users: what a shadow would have shown for a request that the live snapshot answered."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One list. A shadow's has the request id of the answer it is compared with.

    at: aware UTC, the service's clock when the answer was ready. generation: of the alias by which the request was answered; a
    canary runs for one generation. version: the snapshot that the list is from; that of the live one in the canary's arm where
    the canary could not be served. items: as shown, best first. total_ms: from the request's arrival to its list.
    degraded: a stage fell back.
    """

    request_id: str
    user_id: UserId
    at: datetime
    generation: int
    version: VersionName
    arm: Arm
    items: tuple[ItemId, ...]
    total_ms: float
    degraded: bool
