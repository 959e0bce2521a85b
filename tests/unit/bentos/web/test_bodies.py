"""Bodies that the front reads: in pieces, too large, of another type, slow, or never ending."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from bentos.web import exchange as exchange_module
from bentos.web.front import Front
from tests.unit.bentos.web.asking import LIMIT, ROUTES, Answer, ask, inner


async def test_a_body_in_pieces_is_read_whole_and_every_reply_carries_its_request_id() -> None:
    answer = await ask("POST", "/add", body=[b'{"a": 1,', b' "b": 2', b"}"])
    assert (answer.status, answer.json) == (200, {"sum": 3})
    assert len(answer.headers[b"x-request-id"]) == 32
    assert int(answer.headers[b"content-length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("body", "status", "name", "told"),
    [
        ([b""], 400, "MalformedRequest", "The body is not JSON"),
        ([b"{"], 400, "MalformedRequest", "The body is not JSON"),
        (
            [b'{"a": NaN, "b": Infinity}'],
            400,
            "MalformedRequest",
            "The body is not JSON: a is NaN, and JSON has neither",
        ),
        ([b'{"a": 1, "b": {"c": ["NaN", [], [1, -Infinity, NaN]]}}'], 400, "MalformedRequest", "b.c.2.1 is -Infinity"),
        ([b"Infinity"], 400, "MalformedRequest", "The body is not JSON: the body is Infinity"),
        ([b'{"a": NaN, "b": }'], 400, "MalformedRequest", "The body is not JSON: unexpected character"),
        ([b'{"c": NaN, "a":' + b"[" * 900], 400, "MalformedRequest", "The body is not JSON"),
        ([b'{"a": 1e999, "b": 1}'], 422, "InvalidRequest", "a: "),
        ([b'{"a": "NaN", "b": 1}'], 422, "InvalidRequest", "a: "),
        ([b'{"a": "\xff"}'], 400, "MalformedRequest", "The body is not JSON"),
        ([b"[" * 900], 400, "MalformedRequest", "recursion limit"),
        (
            [b'{"a": 1, "b": 2, "s": 3}'],
            422,
            "InvalidRequest",
            "s: There is no such field, wanted one of a, b (seen 3)",
        ),
        ([b"1" * 900], 422, "InvalidRequest", "the body: "),
        ([b"[1, 2]"], 422, "InvalidRequest", "the body: "),
        ([b'{"a": 1}'], 422, "InvalidRequest", "b: Field required"),
        ([b'{"a": "x", "b": null}'], 422, "InvalidRequest", "(seen 'x'); b: "),
        ([b" " * (LIMIT + 1)], 413, "BodyTooLarge", "1,001 bytes; wanted at most 1,000"),
        ([b" " * 600, b" " * 600], 413, "BodyTooLarge", "more than 1,000 bytes"),
    ],
)
async def test_a_body_that_will_not_do_is_refused_and_told_why(
    body: list[bytes], status: int, name: str, told: str
) -> None:
    answer = await ask("POST", "/add", body=body)
    assert answer.status == status
    assert answer.error["type"] == name
    assert told in answer.error["message"]
    assert answer.error["mend"]
    assert answer.json["request_id"] == answer.headers[b"x-request-id"].decode()


async def test_a_route_may_take_larger_bodies_than_the_service_s_others() -> None:
    body = b'{"a": 1, "b": 2}' + b" " * LIMIT
    assert (await ask("POST", "/add_much", body=[body])).json == {"sum": 3}
    assert (await ask("POST", "/add_much", body=[body + b" " * LIMIT])).status == 413


async def test_a_body_that_states_to_be_too_large_is_refused_before_it_is_read() -> None:
    answer = await ask("POST", "/add", body=[], headers={"content-length": "300000"})
    assert answer.status == 413
    assert "300,000 bytes" in answer.error["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_another_content_type_is_refused(kind: str) -> None:
    answer = await ask("POST", "/add", body=[b'{"a": 1, "b": 2}'], headers={"content-type": kind})
    assert (answer.status, answer.error["type"]) == (415, "NotJson")


@pytest.mark.parametrize("kind", ["", "application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
async def test_a_content_type_of_json_or_none_is_taken(kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    assert (await ask("POST", "/add", body=[b'{"a": 1, "b": 2}'], headers=headers)).status == 200


@pytest.mark.parametrize("body", [[], [b'{"a": 1,', b""]])
async def test_a_body_that_does_not_come_or_does_not_end_is_given_up(
    body: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "BODY_TIMEOUT_S", 0.01)
    front = Front(inner, lambda: ROUTES, max_body_bytes=LIMIT)
    sent: list[Message] = []
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in body]

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/add", "raw_path": b"/add", "query_string": b"", "headers": []}
    await front(scope, receive, send)
    answer = Answer(sent)
    assert (answer.status, answer.error["type"]) == (408, "BodyTimeout")


async def test_a_caller_that_has_gone_is_sent_nothing() -> None:
    front = Front(inner, lambda: ROUTES, max_body_bytes=LIMIT)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/add", "raw_path": b"/add", "query_string": b"", "headers": []}
    await front(scope, receive, send)
    assert sent == []
