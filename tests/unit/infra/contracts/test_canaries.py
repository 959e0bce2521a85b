"""Who is in a canary's share: the same for ever, in the stated proportion, independent between canaries."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from infra.contracts.canaries import Canary, CanaryMode, bucket
from infra.contracts.errors import InvalidRequest
from infra.contracts.ids import VersionName


def _canary(fraction: float, *, salt: str = "a", mode: CanaryMode = CanaryMode.CANARY) -> Canary:
    return Canary(VersionName("v2"), "d" * 64, fraction, salt, mode, datetime(2026, 1, 2, tzinfo=UTC), "ada")


def test_a_bucket_is_the_same_in_every_process_and_release() -> None:
    assert [round(bucket(user, "salt"), 6) for user in ("1", "2", "é")] == [0.313804, 0.38623, 0.704695]


def test_buckets_are_uniform_and_independent_between_salts() -> None:
    one = np.array([bucket(str(user), "one") for user in range(20_000)])
    two = np.array([bucket(str(user), "two") for user in range(20_000)])
    shares = np.histogram(one, bins=10, range=(0, 1))[0] / len(one)
    assert np.abs(shares - 0.1).max() < 5 * np.sqrt(0.09 / len(one))
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / np.sqrt(len(one))


def test_a_larger_fraction_keeps_the_users_of_the_smaller() -> None:
    users = [str(user) for user in range(1000)]
    small, large = _canary(0.05), _canary(0.2)
    assert all(large.takes(user) for user in users if small.takes(user))
    assert 20 < sum(map(small.takes, users)) < 90


def test_json_round_trips() -> None:
    canary = _canary(0.125, mode=CanaryMode.SHADOW)
    assert Canary.from_json(canary.to_json()) == canary


@pytest.mark.parametrize(("fraction", "mode"), [(0.0, "canary"), (0.51, "canary"), (1.01, "shadow"), (-1.0, "shadow")])
def test_a_fraction_that_cannot_be_is_refused(fraction: float, mode: str) -> None:
    with pytest.raises(InvalidRequest, match="wanted more than 0 and at most"):
        _canary(fraction, mode=CanaryMode(mode))
