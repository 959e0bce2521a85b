"""expiry: whose expiry a worker has set lately, so that not every touch sets it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_AT_MOST = 32_768
"""Keys that are remembered a shard, some 4 MB; beyond, it begins anew, which costs an EXPIRE a key."""


Clock = Callable[[], float]
"""Seconds since some moment."""


def since_boot_s() -> float:
    """Of the machine; sleep counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class _Turn:
    epoch: int
    began_s: float
    keys: set[str] = field(default_factory=set)


class Lately:
    """The keys whose expiry was set under the claim that a shard is under, within `within_s` seconds.

    Under one claim nobody else writes to the shard: a key that is here is there, unless who holds this dropped its last field.
    """

    def __init__(self, within_s: float, clock: Clock) -> None:
        """clock: it must go on while the machine sleeps, for expiry does."""
        self._within_s = within_s
        self._clock = clock
        self._turns: dict[int, _Turn] = {}

    def of(self, shard: int, epoch: int) -> set[str]:
        """To be looked at and added to; empty where the claim is new, or after `within_s`."""
        turn = self._turns.get(shard)
        now_s = self._clock()
        if turn is None or turn.epoch != epoch or now_s - turn.began_s > self._within_s or len(turn.keys) > _AT_MOST:
            turn = self._turns[shard] = _Turn(epoch, now_s)
        return turn.keys

    def forget(self, shard: int) -> None:
        """What was set may not be so any more."""
        self._turns.pop(shard, None)
