"""PUT and GET of an item: in effect with the answer while a worker counts, soon where none does; what may be said, and what not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import orjson
import pytest
from starlette.types import Receive, Scope, Send

from bentos.ranking import items as module
from bentos.ranking.feedback import now_utc
from bentos.ranking.items import ItemChange, Items, item_routes
from bentos.web.front import Front
from infra.catalog.events.ranking import RANKING_EVENTS
from tests.fixtures.answers import Town, town
from tests.fixtures.redis_server import RedisProcess


@dataclass
class Desk:
    """The routes over a town's parts, behind the front."""

    place: Town
    items: Items

    async def send(self, method: str, item_id: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """Status and document."""
        front = Front(_nothing_behind, lambda: item_routes(self.items), max_body_bytes=65536)
        path = f"/items/{quote(item_id, safe='')}"
        scope = {"type": "http", "method": method, "path": unquote(path), "raw_path": path.encode()}
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": orjson.dumps(body), "more_body": False}

        async def take(message: Any) -> None:
            sent.append(message)

        await front(scope | {"query_string": b"", "headers": []}, receive, take)
        return sent[0]["status"], orjson.loads(sent[1]["body"])


async def _nothing_behind(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(scope["path"])


@asynccontextmanager
async def desk(own_redis: RedisProcess, root: Path) -> AsyncIterator[Desk]:
    async with town(own_redis.url, root) as place:
        recommender, _ = place.feed
        yield Desk(place, Items(place.log, RANKING_EVENTS, place.boards, recommender.pin))


async def test_what_is_said_is_in_effect_with_the_answer(
    own_redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 30.0)
    async with desk(own_redis, tmp_path / "store") as at, at.place.working("a worker"):
        shown = await at.place.ask("u3", n=10)
        status, reply = await at.send("PUT", shown[0], {"available": False, "title": "Another", "genres": ["Polka"]})
        assert (status, reply["in_effect"]) == (200, True)
        assert reply["item"] == (await at.send("GET", shown[0]))[1]
        item = reply["item"]
        assert (item["available"], item["title"], item["genres"]) == (False, "Another", ["Polka"])
        assert (item["known_by"], item["changed"]) == ("snapshot", ["available", "title", "genres"])
        assert shown[0] not in await at.place.ask("u3", n=10)
        status, reply = await at.send("PUT", shown[0], {"available": True})
        assert status == 200 and await at.place.ask("u3", n=10) == shown


async def test_an_unknown_item_with_a_title_is_new(
    own_redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 30.0)
    async with desk(own_redis, tmp_path / "store") as at, at.place.working("a worker"):
        status, reply = await at.send("GET", "n 1")
        assert status == 404 and "Nothing is known" in reply["error"]["message"]
        _, reply = await at.send("PUT", "n 1", {"genres": ["Drama"]})
        assert reply["item"]["known_by"] == "nobody"
        _, reply = await at.send("PUT", "n 1", {"title": "The new one", "creator": "somebody"})
        item = reply["item"]
        assert (item["known_by"], item["title"], item["creator"]) == ("stream", "The new one", "somebody")
        assert item["genres"] == ["Drama"], "said before"
        assert "n 1" in await at.place.ask("nobody", n=50)
        await at.send("PUT", "n 1", {"title": "Its second title", "available": False})
        assert (await at.send("GET", "n 1"))[1]["title"] == "Its second title"
        assert "n 1" not in await at.place.ask("nobody", n=300)


async def test_while_no_worker_counts_the_log_has_it_and_the_answer_says_so(
    own_redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    async with desk(own_redis, tmp_path / "store") as at:
        status, reply = await at.send("PUT", "i5", {"available": False})
        assert (status, reply["in_effect"]) == (202, False)
        assert reply["item"]["available"]
        async with at.place.working("a worker"):
            await at.place.until_counted()
            await at.place.boards.refresh(1)
        assert not (await at.send("GET", "i5"))[1]["available"]


@pytest.mark.parametrize(
    ("body", "because"),
    [
        ({}, "says nothing of the item"),
        ({"title": None}, "says nothing of the item"),
        ({"price": 3}, "price"),
        ({"available": 1}, "available"),
        ({"available": "no"}, "available"),
        ({"title": ""}, "title"),
        ({"title": "x" * 257}, "title"),
        ({"title": "ü" * 200}, "400 bytes; wanted at most 256"),
        ({"title": " \t"}, "title"),
        ({"title": "\u00a0\u2003"}, "title"),
        ({"creator": "a\u0000b"}, "creator"),
        ({"genres": ["Drama", " "]}, "genres"),
        ({"genres": ["Dra\nma"]}, "genres"),
        ({"genres": []}, "genres"),
        ({"genres": ["a|b"]}, "genres"),
        ({"genres": ["g" * 200, "h" * 200]}, "401 bytes; wanted at most 256"),
        ([], "object"),
    ],
)
async def test_what_may_not_be_said_is_refused_by_its_field_and_the_log_stays_empty(
    own_redis: RedisProcess, tmp_path: Path, body: object, because: str
) -> None:
    async with desk(own_redis, tmp_path / "store") as at:
        status, reply = await at.send("PUT", "i5", body)
        assert status == 422 and because in reply["error"]["message"]
        assert {extent.tip for extent in (await at.place.log.extents(range(16))).values()} == {0}


@pytest.mark.parametrize("item_id", ["x" * 257, "ü" * 129])
async def test_an_id_that_none_may_have_is_refused(own_redis: RedisProcess, tmp_path: Path, item_id: str) -> None:
    async with desk(own_redis, tmp_path / "store") as at:
        for method in ("PUT", "GET"):
            status, reply = await at.send(method, item_id, {"available": False})
            assert status == 422 and "item_id has" in reply["error"]["message"]


def test_the_change_as_an_event_is_one_that_the_log_takes() -> None:
    said = ItemChange(available=False, title="T", creator="C", genres=["a", "b"]).fields()
    event = RANKING_EVENTS.parse(said | {"event_type": "item_changed", "item_id": "i1"}, now=now_utc())
    assert event.values == {"available": 0, "title": "T", "creator": "C", "genres": "a|b"}


async def test_ids_may_hold_slashes_and_anything_else(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with desk(own_redis, tmp_path / "store") as at, at.place.working("a worker"):
        name = "a/b:{}\n ü"
        assert (await at.send("PUT", name, {"available": False}))[0] in (200, 202)
        await at.place.until_counted()
        await at.place.boards.refresh(1)
        status, reply = await at.send("GET", name)
        assert (status, reply["item_id"], reply["available"]) == (200, name, False)
