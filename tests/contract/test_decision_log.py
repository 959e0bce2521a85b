"""The decision log on a real Redis: what goes in comes out to the bit, and what is archived can be dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields, replace

import numpy as np
import pytest
import pytest_asyncio
import redis.asyncio

from infra.contracts.decisions import Basis, Decision, digest_of, rows_that_fit
from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.exposures import Arm
from infra.contracts.ids import ItemId, UserId, VersionName
from infra.eventlog.decisions import BEGINNING, LoggedDecision, RedisDecisionLog, decoded, encoded
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import free_port

STREAM = "decisions"
RNG = np.random.default_rng(3)
SCORES = RNG.normal(size=3).astype(np.float32)
FEATURES = RNG.normal(size=(3, 5)).astype(np.float32)
FEATURES[1, 2] = np.nan


def decision(number: int = 0) -> Decision:
    return Decision(
        request_id=f"r{number}",
        user_id=UserId("u{}:\n1"),
        request={"n": 3, "recent_items": ["i9"], "exclude": [], "deadline_ms": None},
        generation=7,
        version=VersionName("v2"),
        arm=Arm.LIVE,
        basis=Basis(1_780_000_000_000_001, 40, (43, 47), True, 1_779_999_999_000_000, (1, 2, 3), ("e1",)),
        nearline={"clicks_last_hour": 3, "recent_items": ("i1", "i2"), "trending_clicks": (("i1", 4),)},
        items=(ItemId("i1"), ItemId("ü"), ItemId("i3")),
        scores=SCORES,
        list_digest=digest_of(["i1", "ü", "i3"], SCORES),
        columns=("a", "b", "c", "d", "e"),
        features=FEATURES,
        decided_by="ranker",
        degraded=False,
        stage_ms={"retrieval": 0.123, "total": 4.5},
        skipped={},
    )


def same(one: Decision, other: Decision) -> bool:
    """To the bit, NaN included."""
    plain = [field.name for field in fields(Decision) if field.name not in ("scores", "features")]
    return all(getattr(one, name) == getattr(other, name) for name in plain) and (
        one.scores.tobytes() == other.scores.tobytes()
        and one.features.tobytes() == other.features.tobytes()
        and one.features.shape == other.features.shape
    )


@pytest_asyncio.fixture
async def log(redis_url: str) -> AsyncIterator[RedisDecisionLog]:
    client: redis.asyncio.Redis = serving_client(redis_url, timeout_s=5.0)
    await client.delete(STREAM)
    yield RedisDecisionLog(client, STREAM, kept=1000)
    await client.delete(STREAM)
    await client.aclose()


async def test_what_goes_in_comes_out_to_the_bit_and_in_order(log: RedisDecisionLog) -> None:
    nothing = Basis(1, None, (), True)
    empty = replace(decision(2), basis=nothing, items=(), scores=SCORES[:0], features=FEATURES[:0], nearline={})
    given = [decision(0), decision(1), empty]
    await log.append(given)
    found = await log.read(after=BEGINNING, count=10)
    assert all(same(entry.decision(), wanted) for entry, wanted in zip(found, given, strict=True))
    rest = await log.read(after=found[0].position, count=1)
    assert [entry.position for entry in rest] == [found[1].position]


async def test_what_is_archived_is_dropped_and_nothing_else(log: RedisDecisionLog) -> None:
    await log.append([decision(number) for number in range(5)])
    found = await log.read(after=BEGINNING, count=10)
    await log.trim(upto=found[2].position)
    assert [entry.position for entry in await log.read(after=BEGINNING, count=10)] == [
        entry.position for entry in found[3:]
    ]


async def test_a_log_that_nobody_archives_keeps_the_newest(redis_url: str) -> None:
    client: redis.asyncio.Redis = serving_client(redis_url, timeout_s=5.0)
    small = RedisDecisionLog(client, STREAM, kept=100)
    for start in range(0, 2000, 100):
        await small.append([decision(start + number) for number in range(100)])
    left = await small.read(after=BEGINNING, count=5000)
    assert 100 <= len(left) < 400 and left[-1].decision().request_id == "r1999"
    await client.delete(STREAM)
    await client.aclose()


async def test_a_redis_that_is_away_and_a_position_that_is_none_are_told() -> None:
    client: redis.asyncio.Redis = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    away = RedisDecisionLog(client, STREAM, kept=10)
    with pytest.raises(DependencyUnavailable, match="did not take 1"):
        await away.append([decision()])
    with pytest.raises(DependencyUnavailable):
        await away.read(after=BEGINNING, count=1)
    with pytest.raises(InvalidRequest, match="is not a position"):
        await away.read(after="now", count=1)
    await client.aclose()


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"null", b'{"basis": 3}'])
def test_what_headgate_did_not_write_is_refused(document: bytes) -> None:
    with pytest.raises(ContractViolation, match="headgate did not write"):
        LoggedDecision("1-1", document, b"").decision()
    good, matrix = encoded(decision())
    with pytest.raises(ContractViolation):
        decoded(good, matrix[:-1])


def test_an_answer_s_feature_vectors_fit_into_eight_kilobytes() -> None:
    assert rows_that_fit(19) * 19 * 4 <= 8192 < (rows_that_fit(19) + 1) * 19 * 4
