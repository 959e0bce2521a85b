"""What differs between two answers is found to the bit, said in words, and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bentos.ranking.differences import compare
from infra.contracts.decisions import Basis, Decision, digest_of
from infra.contracts.exposures import Arm
from infra.contracts.ids import ItemId, UserId, VersionName

SCORES = np.array([2.0, 1.0], np.float32)
FEATURES = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, -0.0]], np.float32)
LOGGED = Decision(
    request_id="r1",
    user_id=UserId("u1"),
    request={"n": 2},
    generation=1,
    version=VersionName("v1"),
    arm=Arm.LIVE,
    basis=Basis(1, 40, (), True),
    nearline={"clicks": 3, "recent_items": ("i9",)},
    items=(ItemId("i1"), ItemId("i2")),
    scores=SCORES,
    list_digest=digest_of(["i1", "i2"], SCORES),
    columns=("a", "b", "c"),
    features=FEATURES,
    decided_by="ranker",
    degraded=False,
    stage_ms={"total": 1.0},
    skipped={"fresh": "late", "telemetry": "a watcher"},
)


def with_feature(row: int, column: int, value: float) -> Decision:
    features = FEATURES.copy()
    features[row, column] = value
    return replace(LOGGED, features=features)


def test_the_same_answer_differs_in_nothing_whatever_it_took_and_said_of_failures() -> None:
    again = replace(LOGGED, features=FEATURES.copy(), stage_ms={"total": 9.0}, skipped={"fresh": "otherwise"})
    found = compare(LOGGED, again)
    assert (found.differences, found.values, found.mismatches) == ((), 8, 0)


@pytest.mark.parametrize(
    ("made", "kind", "text", "values"),
    [
        (with_feature(0, 0, np.nextafter(np.float32(1), np.float32(2))), "features", "a of i1 was", 1),
        (with_feature(1, 2, 0.0), "features", "c of i2 was", 1),  # 0.0 equals -0.0, its bits do not
        (with_feature(0, 1, 7.0), "features", "b of i1 was", 1),
        (replace(LOGGED, features=FEATURES[:1]), "features", "vectors were (2, 3)", 6),
        (replace(LOGGED, columns=("a", "c", "b")), "features", "vectors were", 6),
        (replace(LOGGED, nearline={"clicks": 4, "recent_items": ("i9",)}), "nearline", "clicks was 3, is 4", 1),
        (replace(LOGGED, nearline={"clicks": 3}), "nearline", "recent_items was ('i9',), is None", 1),
        (replace(LOGGED, items=(ItemId("i1"),)), "items", "place 2 was i2, is nothing", 0),
        (replace(LOGGED, scores=np.array([2.0, 1.5], np.float32)), "scores", "place 2 was 1.0, is 1.5", 0),
        (replace(LOGGED, list_digest="f" * 64), "list", "is ffffffffffff", 0),
        (replace(LOGGED, decided_by="fresh"), "stages", "decided by ranker, is fresh", 0),
        (replace(LOGGED, degraded=True), "stages", "is ranker, degraded", 0),
        (replace(LOGGED, skipped={"ranker": "torn"}), "stages", "ranker fails now: torn", 0),
    ],
)
def test_one_thing_that_differs_is_named(made: Decision, kind: str, text: str, values: int) -> None:
    found = compare(LOGGED, made)
    assert found.kinds == (kind,)
    (difference,) = found.differences
    assert text in difference.text
    assert found.mismatches == values
