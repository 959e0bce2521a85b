"""/score_rows over HTTP: BentoML makes one native call of concurrent requests, and a bad request spoils nobody else's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from bentos.ranking.content import load_content
from bentos.ranking.rows import MAX_ROWS
from bentos.ranking.trees import predict
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.snapshots.versions import SnapshotStore
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Served, Stage, serving
from tests.fixtures.tiny_snapshot import RANKING

WIDTH = len(RANKER_FEATURES)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("score_rows")
    redis = RedisProcess(folder)
    redis.start()
    try:
        stage = Stage(folder / "store", redis.url)
        stage.flip_live()
        with serving(stage, folder=folder, environment={"HEADGATE_SERVICE_WORKERS": "1"}) as running:
            running.wait_ready()
            yield running
    finally:
        redis.stop()


def rows_of(n: int, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((n, WIDTH)).astype(np.float32)


def expected(served: Served, rows: np.ndarray) -> np.ndarray:
    """By the booster of the sealed snapshot itself."""
    store = SnapshotStore(str(served.stage.root), RANKING)
    version = store.get(store.versions()[-1])
    return predict(load_content(version, version.manifest()).ranker, rows)


def batches(served: Served) -> tuple[float, float]:
    """Native calls made so far, and requests in them, by BentoML's own metric."""
    text = httpx.get(f"{served.url}/metrics").text
    found = {
        kind: re.search(
            rf"^bentoml_service_adaptive_batch_size_{kind}\{{[^}}]*score_rows[^}}]*\}} ([0-9.]+)$", text, re.M
        )
        for kind in ("count", "sum")
    }
    count, total = found["count"], found["sum"]
    return (float(count[1]), float(total[1])) if count and total else (0.0, 0.0)


async def test_concurrent_single_rows_are_scored_together_each_to_the_bit_as_the_booster_alone_does(
    served: Served,
) -> None:
    rows = rows_of(400)
    before = batches(served)
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=30) as client:
        answers = await asyncio.gather(
            *(client.post("/score_rows", json={"rows": [row.astype(float).tolist()]}) for row in rows)
        )
    assert {answer.status_code for answer in answers} == {200}
    scores = np.array([answer.json() for answer in answers], np.float32)[:, 0]
    assert scores.tobytes() == expected(served, rows).tobytes()
    after = batches(served)
    assert after[1] - before[1] == 400
    assert after[0] - before[0] < 400


def test_a_large_request_is_scored_whole(served: Served) -> None:
    rows = rows_of(MAX_ROWS, seed=2)
    answer = httpx.post(f"{served.url}/score_rows", json={"rows": rows.astype(float).tolist()}, timeout=60)
    assert np.array(answer.json(), np.float32).tobytes() == expected(served, rows).tobytes()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"rows": []}', "wanted \\[1 to 10,000"),
        ('{"rows": [[1, 2]]}', "the shape is \\[1, 2\\]"),
        ('{"rows": "x"}', "not a matrix"),
        ('{"rows": {"a": 1}}', "not a matrix"),
        ('{"rows": [[' + ", ".join(["1"] * (WIDTH - 1)) + ", NaN]]}", "NaN"),
        ('{"rows": [[' + ", ".join(["1"] * (WIDTH - 1)) + ", 1e99]]}", "NaN"),
        ("{}", "rows"),
    ],
)
def test_a_bad_request_gets_a_400_that_names_the_field(served: Served, body: str, says: str) -> None:
    answer = httpx.post(f"{served.url}/score_rows", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "rows" in answer.text and re.search(says, answer.text), answer.text


def test_bentoml_describes_it(served: Served) -> None:
    routes = {route["name"]: route for route in httpx.get(f"{served.url}/schema.json").json()["routes"]}
    found = routes["score_rows"]
    assert found["batchable"] is True
    assert found["input"]["properties"]["rows"]["shape"] == [-1, WIDTH]
