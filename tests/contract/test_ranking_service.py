"""The ranking service as it is started in production, over HTTP: golden requests, bad input, and bodies that nobody foresaw."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bentos.ranking.schema import ReadyReply, RecommendReply, StatusReply, UserReply, UsersReply
from infra.snapshots import keys
from tests.fixtures.nearline import logged
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import new_redis
from tests.fixtures.service import Served, Stage, serving
from tests.fixtures.tiny_snapshot import RANKING, tiny_world

ODD_IDS = ["a:b", "{tag}", "line\nbreak", "nul\x00byte", "a/b?c#d%20", "ünïcödé 🎬", " ", "u1 ", "*", "x" * 256]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    server = new_redis()
    stage = Stage(folder / "store", server.url)
    with serving(stage, folder=folder) as served:
        not_ready = httpx.get(f"{served.url}/readyz")
        asked = httpx.post(f"{served.url}/recommend", json={"user_id": "u1"})
        (folder / "before.json").write_text(json.dumps([_facts(not_ready), _facts(asked)]))
        stage.flip_live()
        served.wait_ready()
        yield served
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


def _facts(answer: httpx.Response) -> dict[str, object]:
    return {"status": answer.status_code, "retry_after": answer.headers.get("retry-after"), "content": answer.json()}


@pytest.fixture(scope="module")
def http_client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=10) as client:
        yield client


def ask(client: httpx.Client, **body: object) -> RecommendReply:
    """A whole answer: one whose stages overran their budgets because the machine is busy is asked for again."""
    for _ in range(100):
        answer = client.post("/recommend", json=body)
        assert answer.status_code == 200, answer.text
        reply = RecommendReply.model_validate_json(answer.content)
        assert reply.request_id == answer.headers["x-request-id"]
        if not any(why.startswith("DeadlineExceeded") for why in reply.skipped.values()):
            return reply
    raise AssertionError(f"no whole answer: {reply.skipped}")


def refused(answer: httpx.Response, status: int) -> str:
    """The error's message, after its form was held to what is promised."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert set(content) == {"error", "request_id"}
    assert set(content["error"]) == {"type", "message", "mend"}
    assert "Traceback" not in answer.text
    message: str = content["error"]["message"]
    return message


def test_before_a_snapshot_is_live_readyz_is_red_and_requests_are_503_in_json(served: Served) -> None:
    ready, asked = json.loads((served.log.parent / "before.json").read_text())
    for answer in (ready, asked):
        assert (answer["status"], answer["retry_after"]) == (503, "1")
        assert answer["content"]["error"]["type"] == "SnapshotNotFound"
        assert answer["content"]["error"]["mend"] == "Run: make snapshot"


def test_once_a_snapshot_is_live_readyz_is_green(http_client: httpx.Client) -> None:
    assert ReadyReply.model_validate(http_client.get("/readyz").json()).snapshot == "predictions_v1"


def test_the_answer_has_exactly_the_promised_form(http_client: httpx.Client) -> None:
    body = {"user_id": "u1", "n": 3, "context": {"recent_items": ["i4"], "surface": "home"}, "exclude": ["i5"]}
    ask(http_client, **body)
    content = http_client.post("/recommend", json=body).json()
    assert set(content) == {"request_id", "snapshot", "items", "decided_by", "degraded", "stage_ms"}
    assert (content["snapshot"], content["decided_by"], content["degraded"]) == ("predictions_v1", "ranker", False)
    assert [set(item) for item in content["items"]] == [{"item_id", "score", "source"}] * 3
    assert {"retrieval", "consumed", "excluded", "features", "ranker", "diversity", "total"} <= set(content["stage_ms"])


CONSUMED_BY_U2 = {f"i{item}" for item in tiny_world().histories[2].tolist()}


@pytest.mark.parametrize("n", [1, 20, 100, 300 - 40 - len(CONSUMED_BY_U2)])
def test_filters_never_shorten_a_list(n: int, http_client: httpx.Client) -> None:
    first = [item.item_id for item in ask(http_client, user_id="u2", n=40).items]
    reply = ask(http_client, user_id="u2", n=n, exclude=first[:20], context={"recent_items": first[20:]})
    shown = [item.item_id for item in reply.items]
    assert len(shown) == len(set(shown)) == n
    assert not (set(first) | CONSUMED_BY_U2) & set(shown)


def test_an_unknown_user_gets_the_popular_list_said_so_in_source(http_client: httpx.Client) -> None:
    reply = ask(http_client, user_id="nobody has this id", n=5)
    assert ({item.source for item in reply.items}, reply.degraded) == ({"popular"}, False)


@pytest.mark.parametrize("user_id", ODD_IDS)
def test_an_odd_id_is_one_user_like_any_other_in_lists_events_and_history(
    user_id: str, http_client: httpx.Client
) -> None:
    before = ask(http_client, user_id=user_id, n=5)
    assert before.items[0].source == "popular"
    taken = before.items[0].item_id
    event = {"user_id": user_id, "item_id": taken, "event_type": "click"}
    assert http_client.post("/events", json=event).json()["accepted"] == 1
    assert taken not in [item.item_id for item in ask(http_client, user_id=user_id, n=299).items]
    encoded = "".join(f"%{byte:02X}" for byte in user_id.encode())
    user = UserReply.model_validate(http_client.get(f"/users/{encoded}").json())
    assert user.user_id == user_id
    assert [(item.item_id, item.seen_by) for item in user.history] == [(taken, "stream")]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"user_id": "u1", "n": 0}, "n: "),
        ({"user_id": "u1", "n": -1}, "n: "),
        ({"user_id": "u1", "n": 10_000}, "n: "),
        ({"user_id": "u1", "n": 2.5}, "n: "),
        ({"user_id": "u1", "n": "20"}, "n: "),
        ({"user_id": "u1", "n": None}, "n: "),
        ({"n": 5}, "user_id: "),
        ({"user_id": None}, "user_id: "),
        ({"user_id": 17}, "user_id: "),
        ({"user_id": ""}, "user_id is empty"),
        ({"user_id": "x" * 257}, "user_id has 257 bytes"),
        ({"user_id": "é" * 200}, "user_id has 400 bytes"),
        ({"user_id": "u1", "exclude": "i1"}, "exclude: "),
        ({"user_id": "u1", "exclude": [1]}, "exclude.0: "),
        ({"user_id": "u1", "exclude": ["i1"] * 5001}, "exclude: "),
        ({"user_id": "u1", "context": []}, "context: "),
        ({"user_id": "u1", "context": {"recent_items": "i1"}}, "context.recent_items: "),
        ({"user_id": "u1", "deadline_ms": 0}, "deadline_ms: "),
        ({"user_id": "u1", "limit": 5}, "limit: "),
        ([], "the body: "),
    ],
)
def test_a_value_that_is_not_allowed_is_422_and_named(body: object, told: str, http_client: httpx.Client) -> None:
    assert told in refused(http_client.post("/recommend", json=body), 422)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"user_id=u1", b'{"user_id": "\xff"}', b'{"user_id": "\\ud800"}', b"[" * 5000, b"\x00" * 50]
)
def test_what_is_not_json_is_400(body: bytes, http_client: httpx.Client) -> None:
    answer = http_client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert "The body is not JSON" in refused(answer, 400)


def test_a_wrong_content_type_is_415(http_client: httpx.Client) -> None:
    refused(http_client.post("/recommend", data={"user_id": "u1"}), 415)


@pytest.mark.parametrize("path", ["/recommend", "/events"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_300_kb_is_413_and_the_service_goes_on(
    path: str, chunked: bool, served: Served, http_client: httpx.Client
) -> None:
    body = json.dumps({"user_id": "u1", "exclude": ["x" * 300] * 1000}).encode()
    connection = http.client.HTTPConnection(str(urlsplit(served.url).netloc), timeout=10)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, body=iter([body]) if chunked else body, headers=headers, encode_chunked=chunked)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["type"]) == (413, "BodyTooLarge")
    connection.close()
    assert ask(http_client, user_id="u1", n=1).items


def test_unknown_paths_and_methods_are_json_too(http_client: httpx.Client) -> None:
    refused(http_client.get("/no/such/page"), 404)
    wrong = http_client.get("/recommend")
    refused(wrong, 405)
    assert wrong.headers["allow"] == "POST"
    refused(http_client.get("/users?limit=0"), 422)
    refused(http_client.get("/users/%FF"), 400)


def test_good_events_are_taken_once_and_bad_ones_refused_with_their_reason(
    served: Served, http_client: httpx.Client
) -> None:
    before, buried = len(logged(served.stage.client)), served.stage.client.xlen(keys.dead_letters(RANKING))
    counted = StatusReply.model_validate(http_client.get("/status").json()).counters
    good = {"user_id": "u50", "item_id": "i1", "event_type": "click", "event_id": "once"}
    bad = good | {"event_id": "twice", "event_time": "3024-01-01T00:00:00Z"}
    first = http_client.post("/events", json={"events": [bad, good]}).json()
    assert (first["accepted"], first["duplicates"]) == (1, 0)
    assert [one["index"] for one in first["refused"]] == [0] and "ahead of" in first["refused"][0]["reason"]
    again = http_client.post("/events", json=good).json()
    assert (again["duplicates"], again["positions"]) == (1, first["positions"])
    assert len(logged(served.stage.client)) == before + 1
    assert "ahead of" in refused(http_client.post("/events", json=bad), 422)
    refused(http_client.post("/events", content=b"{no json", headers={"content-type": "application/json"}), 400)
    counters = StatusReply.model_validate(http_client.get("/status").json()).counters
    told = {name: counters[name] - counted[name] for name in ("events", "events_refused", "events_known_before")}
    assert told == {"events": 1, "events_refused": 3, "events_known_before": 1}
    assert served.stage.client.xlen(keys.dead_letters(RANKING)) == buried + 3


def test_what_was_just_consumed_is_not_on_the_very_next_list(http_client: httpx.Client) -> None:
    for _ in range(20):
        shown = ask(http_client, user_id="u51", n=5).items[0].item_id
        event = {"user_id": "u51", "item_id": shown, "event_type": "click"}
        assert http_client.post("/events", json=event).status_code == 200
        assert shown not in {item.item_id for item in ask(http_client, user_id="u51", n=200).items}
    user = UserReply.model_validate(http_client.get("/users/u51").json())
    assert (user.nearline["clicks_last_hour"], user.nearline["clicks_in_session"], user.counted) == (20, 20, True)


def test_users_status_and_the_documents_hold_to_their_schemas(http_client: httpx.Client) -> None:
    users = UsersReply.model_validate(http_client.get("/users?limit=10").json()).users
    assert [user.known for user in users] == [True] * 10 + [False]
    status = StatusReply.model_validate(http_client.get("/status").json())
    assert status.live is not None
    assert (status.ready, status.problem, status.live.generation) == (True, "", 1)
    assert set(http_client.get("/docs.json").json()["paths"]) >= {"/recommend", "/events", "/readyz", "/status"}


def test_the_page_and_the_swagger_page_come_whole_from_this_host(http_client: httpx.Client) -> None:
    for path in ("/", "/page/page.css", "/page/page.js", "/docs", "/static_content/swagger-ui-bundle.js"):
        assert http_client.get(path).status_code == 200, path
    assert "default-src 'self'" in http_client.get("/").headers["content-security-policy"]


def test_metrics_count_what_was_answered_by_stage(http_client: httpx.Client) -> None:
    ask(http_client, user_id="u1")
    metrics = http_client.get("/metrics").text
    assert 'headgate_requests_total{application="ranking",decided_by="ranker",degraded="false"}' in metrics
    assert 'headgate_stage_ms_count{application="ranking",stage="ranker"}' in metrics
    assert 'headgate_http_replies_total{route="/recommend",status="200"}' in metrics
    for path in ("/livez", "/healthz", "/schema.json"):
        assert http_client.get(path).status_code == 200


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_IDS = st.sampled_from([*ODD_IDS, *(f"u{user}" for user in range(5))]) | st.text(max_size=30)
_NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "user_id": _IDS | _JSON,
        "n": st.integers(-5, 1100) | _JSON,
        "context": st.fixed_dictionaries({"recent_items": st.lists(_IDS, max_size=5)}) | _JSON,
        "exclude": st.lists(st.sampled_from([f"i{item}" for item in range(300)]), max_size=300) | _JSON,
        "details": st.booleans() | _JSON,
        "deadline_ms": st.floats(-1, 1e9) | _JSON,
        "events": st.lists(_JSON, max_size=3) | _JSON,
        "item_id": _IDS,
        "event_type": st.text(max_size=70),
    },
)
_BODIES = (_NEARLY | _JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)


@given(path=st.sampled_from(["/recommend", "/recommend", "/events"]), body=_BODIES)
@hypothesis_settings(
    max_examples=sized(250, full=5000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_body_whatever_brings_a_500_or_anything_but_json(http_client: httpx.Client, path: str, body: bytes) -> None:
    answer = http_client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code == 200 and path == "/recommend":
        reply = RecommendReply.model_validate_json(answer.content)
        asked = json.loads(body)
        excluded = set(asked.get("exclude", []))
        n, consumed_at_most = asked.get("n", 20), 60
        assert n >= len(reply.items) >= min(n, 300 - len(excluded) - consumed_at_most)
        assert not excluded & {item.item_id for item in reply.items}
    elif answer.status_code != 200:
        refused(answer, answer.status_code)
        assert answer.status_code in (400, 422)


def test_the_log_of_all_that_holds_no_trace(served: Served) -> None:
    log = Path(served.log).read_text()
    assert "Traceback" not in log, log[-3000:]
