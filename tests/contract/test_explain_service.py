"""POST /explain and the warm-up over HTTP, with the service and the worker as they are started for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from bentos.ranking.explain_schema import ExplainReply, ItemExplained
from infra.config.settings import CHECKOUT
from tests.fixtures.redis_server import RedisProcess, new_redis
from tests.fixtures.service import Served, Stage, serving

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def served(server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a worker that counts and archives at once."""
    folder = tmp_path_factory.mktemp("explain")
    stage = Stage(folder / "store", server.url)
    stage.flip_live()
    environment = {
        "HEADGATE_STORE": str(stage.root),
        "HEADGATE_REDIS_URL": server.url,
        "HEADGATE_LOG_REDIS_URL": server.url,
        "HEADGATE_ARCHIVE_SECONDS": "0.3",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "infra.nearline", "run"], cwd=CHECKOUT, env={**os.environ, **environment}
    )
    try:
        with serving(stage, folder=folder, environment=environment) as served:
            served.wait_ready()
            yield served
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=PATIENCE_S) as client:
        yield client


def recommended(client: httpx.Client, **body: object) -> tuple[str, list[str]]:
    reply = client.post("/recommend", json=body).json()
    return reply["request_id"], [item["item_id"] for item in reply["items"]]


def explained(client: httpx.Client, **body: object) -> ExplainReply:
    answer = client.post("/explain", json=body)
    assert answer.status_code == 200, answer.text
    return ExplainReply.model_validate_json(answer.content)


def the_sum(item: ItemExplained) -> float:
    assert item.trees is not None
    return item.trees.bias + sum(share.contribution for share in item.trees.features) - item.trees.score


def test_an_answer_is_explained_at_once_by_its_id(client: httpx.Client) -> None:
    request_id, shown = recommended(client, user_id="u3", n=10)
    reply = explained(client, request_id=request_id)
    assert (reply.exact, [item.item_id for item in reply.items]) == (True, shown)
    assert max(abs(the_sum(item)) for item in reply.items) < 1e-4


def test_an_answer_is_explained_to_the_bit_although_its_user_went_on(client: httpx.Client) -> None:
    request_id, shown = recommended(client, user_id="u4", n=10)
    event = {"user_id": "u4", "item_id": shown[0], "event_type": "click"}
    assert client.post("/events", json=event).json()["accepted"] == 1
    ends = time.monotonic() + PATIENCE_S
    while True:
        reply = explained(client, request_id=request_id, items=[shown[0]])
        if reply.exact or time.monotonic() > ends:
            break
        assert reply.note
        time.sleep(0.1)
    assert (reply.exact, reply.made_from) == (True, "archive")
    assert [item.item_id for item in reply.items] == shown
    assert reply.asked[0].place == 1
    now = explained(client, request={"user_id": "u4", "n": 10}, items=[shown[0]])
    assert (now.exact, now.made_from, now.asked[0].verdict) == (None, "request", "removed")


def test_an_explanation_counts_as_no_answer(client: httpx.Client) -> None:
    def counted() -> int:
        return int(client.get("/status").json()["counters"].get("recommendations", 0))

    before = counted()
    explained(client, request={"user_id": "u5", "n": 10})
    assert counted() == before


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 422, "either request_id or request"),
        ({"request_id": "r", "request": {"user_id": "u1"}}, 422, "either request_id or request"),
        ({"request_id": ""}, 422, "request_id"),
        ({"request_id": 7}, 422, "request_id"),
        ({"request": {"user_id": "u1", "n": 0}}, 422, "request.n"),
        ({"request": {"user_id": ""}}, 422, "user_id is empty"),
        ({"request": {"user_id": "u1"}, "items": ["i1"] * 51}, 422, "items"),
        ({"request": {"user_id": "u1"}, "items": ["x" * 300]}, 422, "items"),
        ({"request_id": "never given"}, 404, "There is no answer"),
    ],
)
def test_bad_input_is_a_4xx_that_names_the_field(
    body: dict[str, object], status: int, told: str, client: httpx.Client
) -> None:
    answer = client.post("/explain", json=body)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["error"]["message"]


def test_the_service_was_warm_before_it_was_ready_and_is_for_the_next_snapshot(served: Served) -> None:
    assert "v1 warmed in" in served.log.read_text()
    served.stage.flip_live()
    served.wait_status(lambda status: (status["live"] or {}).get("snapshot") == "predictions_v2")  # type: ignore[attr-defined]
    assert "v2 warmed in" in served.log.read_text()
