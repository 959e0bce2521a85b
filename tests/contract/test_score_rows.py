"""/score_rows over HTTP: BentoML makes one native call of concurrent requests, and a bad request spoils nobody else's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import bentoml
import httpx
import numpy as np
import pytest

from bentos.ranking.content import load_content
from bentos.ranking.rows import MAX_BODY_BYTES, MAX_ROWS
from bentos.ranking.trees import predict
from bentos.web.openapi import ErrorReply
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


def test_a_value_that_is_not_known_is_null_and_means_nan(served: Served) -> None:
    rows = rows_of(20, seed=3)
    rows[::2, 4] = np.nan
    said = [[None if np.isnan(value) else value for value in row] for row in rows.astype(float).tolist()]
    answer = httpx.post(f"{served.url}/score_rows", json={"rows": said, "deadline_ms": None})
    assert np.array(answer.json(), np.float32).tobytes() == expected(served, rows).tobytes()


def body_of(*last: str, more: str = "") -> str:
    """As many rows, each whole but for its last number, which is this."""
    rows = ("[" + "1, " * (WIDTH - 1) + number + "]" for number in last)
    return '{"rows": [' + ", ".join(rows) + "]" + more + "}"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ('{"rows": []}', 422, "rows: .*wanted a list of 1 to 10,000 entries"),
        ('{"rows": [[1, 2]]}', 422, rf"rows\.0: .*wanted a list of {WIDTH} entries"),
        ('{"rows": "x"}', 422, "rows: .*wanted a list of 1 to 10,000 entries"),
        ('{"rows": {"a": 1}}', 422, "rows: "),
        (
            body_of(*["1"] * (MAX_ROWS + 1)),
            422,
            "rows: .*not 10001, wanted a list of 1 to 10,000",
        ),
        (body_of("1", "NaN"), 400, rf"rows\.1\.{WIDTH - 1} is NaN"),
        (body_of("1e99"), 422, rf"rows\.0\.{WIDTH - 1}: .*3\.40282e\+38"),
        (body_of("1e999"), 422, rf"rows\.0\.{WIDTH - 1}: "),
        (body_of('"1"'), 422, rf"rows\.0\.{WIDTH - 1}: .*seen '1'"),
        (body_of("true"), 422, rf"rows\.0\.{WIDTH - 1}: .*seen True"),
        ("{}", 422, "rows: Field required"),
        (body_of("1", more=', "deadline_ms": 0'), 422, "deadline_ms: .*wanted a number from 1 to 60,000"),
        (
            body_of("1", more=', "model": "v1"'),
            422,
            "model: There is no such field, wanted one of rows, deadline_ms",
        ),
        ("rows", 400, "The body is not JSON"),
        (" " * (MAX_BODY_BYTES + 1), 413, "wanted at most 8,388,608 bytes"),
    ],
    ids=range(15),
)
def test_a_bad_request_is_refused_in_the_form_of_all_errors(served: Served, body: str, status: int, says: str) -> None:
    answer = httpx.post(
        f"{served.url}/score_rows", content=body, headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == status, answer.text
    error = ErrorReply.model_validate_json(answer.content).error
    assert re.search(says, error.message), error.message
    assert error.mend


def test_another_method_or_content_type_is_refused_like_elsewhere(served: Served) -> None:
    assert httpx.get(f"{served.url}/score_rows").headers["allow"] == "POST"
    assert (
        httpx.post(
            f"{served.url}/score_rows", content=b"x", headers={"content-type": "application/vnd.bentoml+pickle"}
        ).status_code
        == 415
    )


def test_rows_that_cannot_be_scored_in_time_are_told_so(served: Served) -> None:
    said = {"rows": rows_of(MAX_ROWS).astype(float).tolist(), "deadline_ms": 1}
    answer = httpx.post(f"{served.url}/score_rows", json=said, timeout=60)
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "DeadlineExceeded")


def test_bentoml_s_own_client_is_answered(served: Served) -> None:
    rows = rows_of(3, seed=4)
    with bentoml.SyncHTTPClient(served.url) as client:
        scores = client.score_rows(rows=rows)
    assert np.array(scores, np.float32).tobytes() == expected(served, rows).tobytes()


def test_bentoml_describes_it(served: Served) -> None:
    routes = {route["name"]: route for route in httpx.get(f"{served.url}/schema.json").json()["routes"]}
    found = routes["score_rows"]
    assert found["batchable"] is True
    assert found["input"]["properties"]["rows"]["shape"] == [-1, WIDTH]
