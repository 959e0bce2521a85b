"""The feed's other endpoints over HTTP: many users, sessions, similar and popular items, histories, rules; bad input of all."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import cast

import httpx
import numpy as np
import pytest

from bentos.ranking.schema import RecommendReply
from bentos.ranking.schema_lists import HistoryReply, ManyReply, PopularReply, SimilarReply
from bentos.web.openapi import ErrorReply
from infra.snapshots import keys
from tests.fixtures.service import Served, feed
from tests.fixtures.tiny_snapshot import RANKING, tiny_world


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with feed(tmp_path_factory.mktemp("service")) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def many(client: httpx.Client, **body: object) -> ManyReply:
    answer = client.post("/recommend_many", json=body)
    assert answer.status_code == 200, answer.text
    reply = ManyReply.model_validate_json(answer.content)
    assert reply.request_id == answer.headers["x-request-id"]
    return reply


def whole(client: httpx.Client, path: str, **body: object) -> RecommendReply:
    """A whole answer: one whose stages overran their budgets because the machine is busy is asked for again."""
    for _ in range(100):
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        reply = RecommendReply.model_validate_json(answer.content)
        if not reply.skipped:
            return reply
    raise AssertionError(f"no whole answer: {reply.skipped}")


def alone(client: httpx.Client, **body: object) -> list[str]:
    return [item.item_id for item in whole(client, "/recommend", **body).items]


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = ErrorReply.model_validate_json(answer.content).error
    assert "Traceback" not in answer.text
    return error.message


def test_many_users_are_answered_in_order_each_as_if_alone(client: httpx.Client) -> None:
    users = [f"u{number}" for number in range(100)] + ["nobody", "somebody"]
    reply = many(client, requests=[{"user_id": user} for user in users], shared={"n": 7}, deadline_ms=30_000)
    assert (reply.failed, len(reply.results)) == (0, len(users))
    untouched = 0
    for at, (user, result) in enumerate(zip(users, reply.results, strict=True)):
        assert isinstance(result, RecommendReply)
        assert (result.request_id, len(result.items)) == (f"{reply.request_id}-{at}", 7)
        if not result.skipped:
            untouched += 1
            assert [item.item_id for item in result.items] == alone(client, user_id=user, n=7)
    assert untouched > len(users) // 2


def test_an_entry_s_own_options_come_before_the_shared_ones(client: httpx.Client) -> None:
    entries = [{"user_id": "u1"}, {"user_id": "u1", "n": 2}, {"user_id": "u1", "details": False, "n": 1}]
    results = many(client, requests=entries, shared={"n": 4, "details": True}).results
    told = [(len(result.items), result.items[0].title is not None) for result in results]  # type: ignore[union-attr]
    assert told == [(4, True), (2, True), (1, False)]


def test_one_bad_entry_fails_by_itself(client: httpx.Client) -> None:
    bad = [
        {"user_id": ""},
        {"user_id": "u1", "n": 0},
        "u1",
        {"user_id": "u1", "deadline_ms": 5},
        {"n": 3},
        {"user_id": "u1", "rules": {"pin": {"i1": 9}}, "n": 5},
    ]
    reply = many(client, requests=[{"user_id": "u1"}, *bad, {"user_id": "u2"}])
    assert reply.failed == len(bad)
    kinds = [isinstance(result, ErrorReply) for result in reply.results]
    assert kinds == [False, *[True] * len(bad), False]
    errors = [result.error for result in reply.results if isinstance(result, ErrorReply)]
    assert {error.type for error in errors} == {"InvalidRequest"}
    wanted = ["user_id is empty", "n: ", "the body: ", "deadline_ms: ", "user_id: ", "rules.pin"]
    for error, told in zip(errors, wanted, strict=True):
        assert told in error.message


def test_a_deadline_of_null_is_as_if_it_were_not_said(client: httpx.Client) -> None:
    assert many(client, requests=[{"user_id": "u1"}], deadline_ms=None).failed == 0


def test_entries_whose_turn_does_not_come_in_time_are_told_so(client: httpx.Client) -> None:
    reply = many(client, requests=[{"user_id": f"u{number % 100}"} for number in range(1000)], deadline_ms=20)
    assert 0 < reply.failed < 1000
    errors = [result.error.type for result in reply.results if isinstance(result, ErrorReply)]
    assert set(errors) == {"DeadlineExceeded"}


def logged(served: Served) -> dict[str, str]:
    """Request id -> user, of the decisions in the log."""
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", served.stage.client.xrange(keys.decision_log(RANKING)))
    said = [json.loads(fields[b"d"]) for _, fields in entries]
    return {one["request_id"]: one["user_id"] for one in said}


def test_what_many_were_shown_is_logged_and_what_nobody_known_was_shown_is_not(
    served: Served, client: httpx.Client
) -> None:
    session = client.post("/session", json={"recent_items": ["i1"]}).json()
    reply = many(client, requests=[{"user_id": "u77"}, {"user_id": "u78"}])
    wanted = {result.request_id: user for result, user in zip(reply.results, ("u77", "u78"), strict=True)}
    ends = time.monotonic() + 20
    while not wanted.items() <= logged(served).items():
        assert time.monotonic() < ends, "the lists did not come to the log"
        time.sleep(0.05)
    assert session["request_id"] not in logged(served)


def test_a_session_gets_what_goes_with_its_items(client: httpx.Client) -> None:
    body = {"recent_items": ["i4", "i9"], "n": 10, "exclude": ["i5"], "details": True}
    reply = whole(client, "/session", **body)
    assert {item.source for item in reply.items} >= {"fresh"}
    assert len(reply.items) == 10
    assert not {"i4", "i9", "i5"} & {item.item_id for item in reply.items}
    assert "retrieval" not in reply.stage_ms
    other = whole(client, "/session", **{**body, "recent_items": ["i100"]})
    assert [item.item_id for item in other.items] != [item.item_id for item in reply.items]
    unheard = client.post("/session", json={"recent_items": ["no such item"], "n": 3}).json()
    assert {item["source"] for item in unheard["items"]} == {"popular"}


def test_similar_items_are_those_with_the_highest_cosine(client: httpx.Client) -> None:
    vectors = tiny_world().item_vectors.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[17]
    naive = [item for item in np.argsort(-cosines).tolist() if item != 17][:12]
    reply = SimilarReply.model_validate(client.get("/similar/i17?n=12").json())
    assert (reply.snapshot, reply.item_id) == ("predictions_v1", "i17")
    assert [item.item_id for item in reply.items] == [f"i{item}" for item in naive]
    assert [item.score for item in reply.items] == pytest.approx(cosines[naive], abs=1e-5)
    assert len(client.get("/similar/i17").json()["items"]) == 20
    assert "There is no item 'nothing/at all' in predictions_v1" in refused(
        client.get("/similar/nothing%2Fat%20all"), 404
    )


def test_the_popular_list_is_the_snapshot_s(client: httpx.Client) -> None:
    reply = PopularReply.model_validate(client.get("/popular?n=30").json())
    assert [item.item_id for item in reply.items] == alone(client, user_id="whoever", n=30)
    scores = [item.score for item in reply.items]
    assert scores == sorted(scores, reverse=True)


def test_a_history_is_the_newest_of_what_the_user_page_tells(client: httpx.Client) -> None:
    event = {"user_id": "u40", "item_id": "i2", "event_type": "click"}
    assert client.post("/events", json=event).status_code == 200
    user = client.get("/users/u40").json()
    told = HistoryReply.model_validate(client.get("/users/u40/history?limit=2").json())
    assert [item.model_dump() for item in told.history] == user["history"][:2]
    assert (told.known, told.history[0].item_id, told.history[0].seen_by) == (True, "i2", "stream")
    assert not HistoryReply.model_validate(client.get("/users/no%2Fbody/history").json()).known


def test_rules_over_http(client: httpx.Client) -> None:
    consumed = f"i{tiny_world().histories[3][0]}"
    rules = {"allow_categories": ["Music"], "pin": {"i1": 1, consumed: 2, "i299": 3}, "boost_items": {"i3": 10}}
    reply = whole(client, "/recommend", user_id="u3", n=20, rules=rules, details=True)
    assert all("Music" in (item.genres or []) for item in reply.items)
    assert len(reply.items) == 20
    assert reply.not_pinned[consumed] == "consumed before the batch"
    pinned = {item.item_id for item in reply.items} & {"i1", "i299"}
    assert pinned | reply.not_pinned.keys() == {"i1", consumed, "i299"}


WEEK_MS = 7 * 24 * 3_600_000
_DEADLINE = "wanted a number from 1 to 60,000"
_LIST = "wanted a list of 1 to 1,000 entries"


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/recommend", {"user_id": "u1", "deadline_ms": 0}, f"deadline_ms: .*{_DEADLINE}"),
        ("/recommend", {"user_id": "u1", "deadline_ms": WEEK_MS}, f"deadline_ms: .*{_DEADLINE}"),
        ("/recommend", {"user_id": "u1", "deadline_ms": True}, "deadline_ms: "),
        ("/recommend", {"user_id": "u1", "contxt": {}}, "contxt: There is no such field, wanted one of n, .*context"),
        ("/recommend", {"user_id": "u1", "rules": {"pins": {}}}, r"rules\.pins: There is no such field, .*pin"),
        ("/recommend", {"user_id": "u1", "n": 0}, "n: .*wanted a whole number from 1 to 1,000"),
        ("/recommend", {"user_id": "u1", "n": 10_001}, "n: .*wanted a whole number from 1 to 1,000"),
        ("/recommend", {"user_id": "u1", "exclude": ["x" * 257]}, r"exclude\.0: .*wanted text of 0 to 256 characters"),
        ("/recommend", {"user_id": "u1", "exclude": ["i1"] * 5001}, "exclude: .*wanted a list of 0 to 5,000 entries"),
        ("/recommend", {"user_id": "u1", "rules": {"boost": {}}}, r"rules\.boost: "),
        ("/recommend", {"user_id": "u1", "rules": {"boost_items": {"i1": 11}}}, r"boost_items\.i1: .*from 0\.1 to 10"),
        ("/recommend", {"user_id": "u1", "rules": {"pin": {"i1": 0}}}, r"rules\.pin\.i1: .*from 1 to 1,000"),
        ("/recommend", {"user_id": "u1", "rules": {"pin": {"i1": 21}}}, "rules.pin: .*wanted 1 to n, which is 20"),
        ("/recommend", {"user_id": "u1", "rules": {"deny_categories": ["x"] * 201}}, "a list of 0 to 200 entries"),
        ("/recommend_many", {"requests": []}, f"requests: .*{_LIST}"),
        ("/recommend_many", {"requests": [{"user_id": "u"}] * 10_001}, f"requests: .*{_LIST}"),
        ("/recommend_many", {"requests": "u1"}, f"requests: .*{_LIST}"),
        ("/recommend_many", {}, "requests: Field required"),
        ("/recommend_many", {"requests": [{}], "shared": {"n": 0}}, r"shared\.n: .*from 1 to 1,000"),
        ("/recommend_many", {"requests": [{}], "deadline_ms": 0}, f"deadline_ms: .*{_DEADLINE}"),
        ("/recommend_many", {"requests": [{}], "deadline_ms": WEEK_MS}, f"deadline_ms: .*{_DEADLINE}"),
        ("/recommend_many", {"requests": [{"user_id": "u", "n": 1000}] * 51}, "requests ask for 51,000 items in all"),
        ("/session", {}, "recent_items: Field required"),
        ("/session", {"recent_items": []}, "recent_items: .*wanted a list of 1 to 5,000 entries"),
        ("/session", {"recent_items": ["i1"], "deadline_ms": 0}, f"deadline_ms: .*{_DEADLINE}"),
        ("/session", {"recent_items": ["i1"], "user_id": "u1"}, "user_id: "),
        ("/events", {"events": []}, "wanted a list of 1 to 500"),
        ("/events", {"events": [{}] * 10_001}, "wanted a list of 1 to 500"),
        ("/events", {"event_type": "click", "user_id": "x" * 257, "item_id": "i1"}, "wanted 1 to 256"),
    ],
)
def test_a_value_out_of_range_is_422_with_the_field_and_what_is_allowed(
    path: str, body: object, told: str, client: httpx.Client
) -> None:
    message = refused(client.post(path, json=body), 422)
    assert re.search(told, message), message


@pytest.mark.parametrize("path", ["/recommend", "/recommend_many", "/session", "/events"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_none_is_4xx_wherever_it_stands(path: str, number: str, client: httpx.Client) -> None:
    status = 422 if "e" in number else 400
    bodies = {
        "/recommend": '{"user_id": "u1", "deadline_ms": %s}',
        "/recommend_many": '{"requests": [{"user_id": "u1"}], "deadline_ms": %s}',
        "/session": '{"recent_items": ["i1"], "rules": {"boost_items": {"i1": %s}}}',
        "/events": '{"event_type": "rating", "user_id": "u1", "item_id": "i1", "value": %s}',
    }
    body = (bodies[path] % number).encode()
    message = refused(client.post(path, content=body, headers={"content-type": "application/json"}), status)
    assert status == 422 or f"{_PLACES[path]} is {number}, and JSON has neither" in message


_PLACES = {
    "/recommend": "deadline_ms",
    "/recommend_many": "deadline_ms",
    "/session": "rules.boost_items.i1",
    "/events": "value",
}


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/users?limit=0", 422, "limit is '0'; wanted a whole number from 1 to 200"),
        ("/users?limit=10001", 422, "wanted a whole number from 1 to 200"),
        ("/users?limit=5&limit=6", 422, "limit is in the query twice"),
        ("/users?size=5", 422, "The query has 'size'; wanted limit."),
        ("/popular?n=0", 422, "n is '0'; wanted a whole number from 1 to 200"),
        ("/popular?n=NaN", 422, "wanted a whole number"),
        ("/similar/i1?n=201", 422, "wanted a whole number from 1 to 200"),
        ("/similar/" + "x" * 257, 422, "item_id has 257 bytes; wanted 1 to 256"),
        ("/similar/%FF", 400, "not UTF-8"),
        ("/similar/%00", 404, "There is no item"),
        ("/users/u1/history?limit=1001", 422, "wanted a whole number from 1 to 1,000"),
        ("/users/" + "x" * 257 + "/history", 422, "user_id has 257 bytes; wanted 1 to 256"),
        ("/users/%FF/history", 400, "not UTF-8"),
        ("/users//history", 404, "There is nothing at"),
    ],
)
def test_a_query_or_path_that_will_not_do_is_4xx_and_told(
    path: str, status: int, told: str, client: httpx.Client
) -> None:
    assert told in refused(client.get(path), status)
