"""From a posted body to records: one and several, what is refused and why, what is kept of it, and what a retry does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import orjson
import pytest
import pytest_asyncio
import redis.asyncio

from bentos.ranking.feedback import Feedback
from bentos.ranking.schema import EventsReply
from infra.catalog.events.ranking import RANKING_EVENTS
from infra.catalog.features.nearline import plan_of
from infra.contracts.errors import DependencyUnavailable, InvalidRequest
from infra.contracts.events import Record, shard_of
from infra.eventlog import records
from infra.eventlog.dead_letters import MAX_PAYLOAD_BYTES, DeadLetters
from infra.eventlog.redis_streams import RedisStreamLog
from infra.nearline.opening import stream_layout
from infra.nearline.pending import PendingRecords
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from tests.fixtures.redis_server import RedisProcess, free_port
from tests.fixtures.tiny_snapshot import RANKING

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CLICK = {"user_id": "u1", "item_id": "i1", "event_type": "click"}


class Desk:
    """A Feedback on a real Redis, and what it left there."""

    def __init__(self, client: redis.asyncio.Redis, events: redis.asyncio.Redis | None = None) -> None:
        self.client = client
        self.log = RedisStreamLog(events or client, stream_layout(RANKING, horizon=1000))
        self.letters = DeadLetters(client, keys.dead_letters(RANKING))
        self.pending = PendingRecords(client, RANKING, plan_of(RANKING), kinds=RANKING_EVENTS.fresh)
        self.feedback = Feedback(self.log, RANKING_EVENTS, pending=self.pending, dead_letters=self.letters)

    async def take(self, body: Mapping[str, object]) -> EventsReply:
        return (await self.feedback.take(body, request_id="r", now=NOW)).reply

    async def logged(self, kind: str, entity_id: str) -> list[Record]:
        shard = shard_of(kind, entity_id)
        found = [one for piece in await self.log.read({shard: 0}, count=1000) for one in records.decode(piece.payloads)]
        return [one for one in found if (one.kind, one.entity_id) == (kind, entity_id)]


@pytest_asyncio.fixture
async def desk(own_redis: RedisProcess) -> AsyncIterator[Desk]:
    client = serving_client(own_redis.url, timeout_s=5.0)
    yield Desk(client)
    await client.aclose()


async def test_one_event_needs_neither_id_nor_time_and_is_logged_for_user_and_item(desk: Desk) -> None:
    reply = await desk.take(CLICK)
    (of_user,), (of_item,) = await desk.logged("user", "u1"), await desk.logged("item", "i1")
    assert of_user._replace(kind="item", entity_id="i1") == of_item
    assert (of_user.event_type, of_user.event_time, len(of_user.event_id)) == ("click", NOW, 32)
    assert (reply.accepted, reply.duplicates, reply.refused) == (1, 0, [])
    assert reply.positions == [f"{shard_of('user', 'u1')}:1"]


async def test_several_events_keep_their_order_ids_times_and_values(desk: Desk) -> None:
    first = CLICK | {"event_id": "e1", "event_time": "2024-06-01T13:00:00+02:00", "value": 4.5, "event_type": "rating"}
    strange = CLICK | {"user_id": "a:{}\n\x00"}
    reply = await desk.take({"events": [first, strange, CLICK]})
    one, two = await desk.logged("user", "u1")
    assert (one.event_id, one.event_type, one.values["value"]) == ("e1", "rating", 4.5)
    assert one.event_time == datetime(2024, 6, 1, 11, tzinfo=UTC)
    assert two.event_type == "click"
    assert len(await desk.logged("user", "a:{}\n\x00")) == 1
    assert (reply.accepted, len(reply.positions)) == (3, 3)


async def test_a_search_concerns_no_item(desk: Desk) -> None:
    await desk.take({"user_id": "u1", "event_type": "search", "query": "tents"})
    (one,) = await desk.logged("user", "u1")
    assert one.values == {"user_id": "u1", "query": "tents"}


async def test_the_bad_events_of_several_are_refused_one_by_one_and_the_good_ones_taken(desk: Desk) -> None:
    bad = [{"event_type": "explode"}, CLICK | {"colour": "red"}, 7, CLICK | {"event_time": "yesterday"}]
    reply = await desk.take({"events": [CLICK, *bad, CLICK]})
    assert reply.accepted == 2
    assert [one.index for one in reply.refused] == [1, 2, 3, 4]
    assert "event_type is 'explode'" in reply.refused[0].reason and "colour" in reply.refused[1].reason
    assert len(await desk.logged("user", "u1")) == 2
    letters = await desk.letters.newest(10)
    assert [orjson.loads(letter.payload) for letter in letters] == bad[::-1]
    assert [letter.reason for letter in letters] == [one.reason for one in reply.refused][::-1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"user_id": ""}, "user_id is empty"),
        ({"item_id": "x" * 257}, "item_id has 257 bytes"),
        ({"event_type": "liked"}, "event_type is 'liked'; wanted one of click"),
        ({"event_id": ""}, "event_id is empty"),
        ({"event_time": (NOW + timedelta(minutes=6)).isoformat()}, "ahead of"),
        ({"event_time": "1969-01-01T00:00:00Z"}, "longer ago than 7 days"),
        ({"event_time": "2024-06-01T13:00:00"}, "event_time is '2024-06-01T13:00:00'; wanted a moment with a zone"),
        ({"user_id": "\ud800"}, "lone surrogate"),
        ({"user_id": 7}, "user_id is 7; wanted text"),
        ({"event_type": "purchase", "value": -1.0}, "value is -1.0; wanted a number from 0"),
        ({"value": "4"}, "value is '4'; wanted a number"),
    ],
)
async def test_what_is_wrong_with_an_event_is_told_and_nothing_is_logged(
    desk: Desk, fields: dict[str, object], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        await desk.take(CLICK | fields)
    assert await desk.logged("user", "u1") == []
    (letter,) = await desk.letters.newest(10)
    assert told.split(";")[0] in letter.reason


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "event_type is None"),
        ({"user_id": "u", "events": [CLICK]}, "both events and user_id"),
        ({"events": []}, "events is 0 of them; wanted a list of 1 to 500"),
        ({"events": [CLICK] * 501}, "events is 501 of them"),
        ({"events": "click"}, "events is str"),
    ],
)
async def test_a_body_of_another_form_is_refused(desk: Desk, body: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        await desk.take(body)


async def test_an_event_that_is_sent_again_counts_once_and_is_told(desk: Desk) -> None:
    event = CLICK | {"event_id": "e1"}
    first, again = await desk.take(event), await desk.take(event)
    assert (again.accepted, again.duplicates, again.positions) == (1, 1, first.positions)
    assert len(await desk.logged("user", "u1")) == len(await desk.logged("item", "i1")) == 1


async def test_while_the_log_is_away_nothing_is_acknowledged(own_redis: RedisProcess) -> None:
    client = serving_client(own_redis.url, timeout_s=5.0)
    away = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    desk = Desk(client, events=away)
    with pytest.raises(DependencyUnavailable, match="Send the events again with the same event_id"):
        await desk.take(CLICK)
    await client.aclose()
    await away.aclose()


async def test_what_the_log_took_is_acknowledged_though_the_serving_redis_is_away(own_redis: RedisProcess) -> None:
    events = serving_client(own_redis.url, timeout_s=5.0)
    away = serving_client(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    desk = Desk(away, events=events)
    taken = await desk.feedback.take(CLICK, request_id="r", now=NOW)
    assert (taken.reply.accepted, taken.not_noted) == (1, 2)
    assert len(await desk.logged("user", "u1")) == 1
    await events.aclose()
    await away.aclose()


async def test_a_body_that_is_no_json_is_kept_cut_to_a_kilobyte(desk: Desk) -> None:
    await desk.feedback.bury(b"{" * 5000, "The body is not JSON.", now=NOW)
    (letter,) = await desk.letters.newest(1)
    assert (letter.payload, letter.at) == (b"{" * MAX_PAYLOAD_BYTES, NOW)
